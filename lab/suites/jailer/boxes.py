"""Starting boxes with the security options of a test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boxlite
import outside
from boxlite import Boxlite, BoxOptions, ImageRegistry, NetworkSpec, Options, SecurityOptions
from packaging.version import Version
from remedies import JAILER_OFF, PREFLIGHT, preflight

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
    """Security options, unless a remedy that is being tried changes them."""
    if security is None or not security.jailer_enabled:
        return security
    if JAILER_OFF:
        return SecurityOptions.development()
    if PREFLIGHT:
        preflight()
    return security


def requested(security: SecurityOptions | None) -> dict[str, object]:
    """What a test asks of boxlite, by the names of boxlite's own options; nothing if boxlite chooses."""
    names = [name for name in dir(security) if not name.startswith("_")] if security else []
    values = {name: getattr(security, name) for name in names}
    return {name: value for name, value in values.items() if value is None or isinstance(value, (bool, int))}


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
        used = allowed(security)
        box = await self.runtime.create(options(self.rootfs, used))
        async with box:
            yield box
            outside.record(self.record, self.home, str(box.id), requested(used))

    async def assert_echoes(self, security: SecurityOptions) -> None:
        """Assert that a box with these options starts, runs a command and returns what it printed."""
        async with self.started(security) as box:
            execution = await box.exec("echo", ["jailer-test"])
            output = "".join([str(chunk) async for chunk in execution.stdout()])
            result = await execution.wait()
            assert (result.exit_code, output.strip()) == (0, "jailer-test")

    def namespaces(self, box: Any, kinds: set[str]) -> set[str]:
        """The kinds of namespace that a process of a running box has for itself; waits for these."""
        return outside.most_confined(outside.shim_pid(self.home, str(box.id)), kinds)[1]
