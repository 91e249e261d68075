"""Starting boxes with the security options of a test."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boxlite
import outside
import pytest
from boxlite import Boxlite, BoxOptions, ImageRegistry, NetworkSpec, Options, SecurityOptions
from packaging.version import Version

try:
    from boxlite import AdvancedBoxOptions
except ImportError:  # boxlite 0.9
    from boxlite.boxlite import AdvancedBoxOptions

release = Version(boxlite.__version__)
# Upstream turned the jailer on by default after 0.9.5, as what each release records of a box shows. There is no
# release 0.9.6.
JAILER_BY_DEFAULT = release > Version("0.9.5")
# Releases of 0.9 make the system that boots in a box from the image debian:bookworm-slim, even if `rootfs_path`
# is set. Newer ones bring that system with them.
NEEDS_REGISTRY = release < Version("0.10.0a0")

# Two remedies change how boxlite is run: with the jailer off, or with a preflight before each jailed box.
JAILER_OFF = os.environ.get("LAB_JAILER") == "off"
PREFLIGHT = "LAB_PREFLIGHT" in os.environ


def runtime(home: Path, registry: str | None) -> Boxlite:
    """The runtime with this home. `registry`, if any, is asked first for each image, without encryption."""
    registries = [ImageRegistry(host=registry, transport="http", search=True)] if registry else []
    return Boxlite(Options(home_dir=str(home), image_registries=registries))


def options(rootfs: str, security: SecurityOptions | None = None) -> BoxOptions:
    """Options of a small box. If `security` is None, boxlite chooses."""
    advanced = None if security is None else AdvancedBoxOptions(security=security)
    # Since 0.10 the host's network grants can be dropped only together with the box's own network.
    offline = security is not None and not security.network_enabled
    return BoxOptions(
        rootfs_path=rootfs,
        cpus=1,
        memory_mib=256,
        auto_remove=True,
        advanced=advanced,
        network=NetworkSpec(mode="disabled") if offline else None,
    )


def allowed(security: SecurityOptions | None) -> SecurityOptions | None:
    """The wanted security options, unless a remedy that is being tried changes them."""
    if security is None or not security.jailer_enabled:
        return security
    if JAILER_OFF:
        return SecurityOptions.development()
    if PREFLIGHT:
        preflight()
    return security


def asked(security: SecurityOptions | None) -> dict[str, object]:
    """What a test asks of boxlite, by the names of boxlite's own options; nothing if boxlite chooses."""
    names = [name for name in dir(security) if not name.startswith("_")] if security else []
    found = {name: getattr(security, name) for name in names}
    return {name: value for name, value in found.items() if value is None or isinstance(value, (bool, int))}


def preflight() -> None:
    """Skip the test if bubblewrap cannot create a user namespace, judged by the same probe as boxlite's own."""
    bundled = Path.home().glob(".local/share/boxlite/runtimes/*/bwrap")
    program = shutil.which("bwrap") or str(next(bundled, "bwrap"))
    probe = subprocess.run(
        [program, "--unshare-user", "--ro-bind", "/", "/", "--", "true"], capture_output=True, text=True
    )
    if probe.returncode != 0:
        pytest.skip(f"bubblewrap can make no user namespace on this host: {probe.stderr.strip()}")


@dataclass
class Boxes:
    """Starts boxes of one runtime. `record` keeps what was seen of them in the test's result."""

    runtime: Boxlite
    home: Path
    rootfs: str
    record: Callable[[str, object], None]

    async def create(self, security: SecurityOptions | None = None) -> Any:
        """A box that was not started. If `security` is None, boxlite chooses the security options."""
        return await self.runtime.create(options(self.rootfs, allowed(security)))

    @asynccontextmanager
    async def started(self, security: SecurityOptions) -> AsyncIterator[Any]:
        """A running box. What confines it is recorded when the test is content with it."""
        wanted = allowed(security)
        box = await self.runtime.create(options(self.rootfs, wanted))
        async with box:
            yield box
            self._record_protection(str(box.id), asked(wanted))

    async def assert_echoes(self, security: SecurityOptions) -> None:
        """Assert that a box with these options starts, runs a command and returns what it printed."""
        async with self.started(security) as box:
            execution = await box.exec("echo", ["jailer-test"])
            output = "".join([str(chunk) async for chunk in execution.stdout()])
            result = await execution.wait()
            assert (result.exit_code, output.strip()) == (0, "jailer-test")

    def namespaces(self, box: Any, wanted: set[str]) -> set[str]:
        """The kinds of namespace that a process of a running box has for itself; waits for those wanted."""
        return outside.most_confined(outside.shim_pid(self.home, str(box.id)), wanted)[1]

    def _record_protection(self, box_id: str, wanted: dict[str, object]) -> None:
        try:
            shim = outside.shim_pid(self.home, box_id)
            process, _ = outside.most_confined(shim, set())
            seen = outside.protection(process, self.home, box_id)
            seen |= {"asked": wanted, "processes": outside.processes(shim)}
            seen |= {"warnings": outside.warnings(self.home, box_id)}
            self.record("protection", seen)
        except (OSError, ValueError, LookupError) as error:
            # The box works; only what confines it stays unknown.
            print(f"what confines the box could not be read: {error!r}", file=sys.stderr)
