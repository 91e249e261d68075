"""Starting boxes, and looking at the processes behind them from outside."""

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boxlite
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

NAMESPACES = ("mnt", "user", "pid", "ipc", "uts")

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


def preflight() -> None:
    """Skip the test if bubblewrap cannot create a user namespace, judged by the same probe as boxlite's own."""
    bundled = Path.home().glob(".local/share/boxlite/runtimes/*/bwrap")
    program = shutil.which("bwrap") or str(next(bundled, "bwrap"))
    probe = subprocess.run(
        [program, "--unshare-user", "--ro-bind", "/", "/", "--", "true"], capture_output=True, text=True
    )
    if probe.returncode != 0:
        pytest.skip(f"bubblewrap can make no user namespace on this host: {probe.stderr.strip()}")


@asynccontextmanager
async def started(runtime: Boxlite, rootfs: str, security: SecurityOptions | None) -> AsyncIterator[Any]:
    """A running box. If `security` is None, boxlite chooses the security options."""
    box = await runtime.create(options(rootfs, allowed(security)))
    async with box:
        yield box


async def echo(box: Any, text: str) -> tuple[int, str]:
    """Exit status and standard output of `echo TEXT` inside the box."""
    execution = await box.exec("echo", [text])
    output = "".join([str(chunk) async for chunk in execution.stdout()])
    result = await execution.wait()
    return result.exit_code, output.strip()


async def assert_echoes(runtime: Boxlite, rootfs: str, security: SecurityOptions | None) -> None:
    """Assert that a box with these options starts, runs a command and returns what it printed."""
    async with started(runtime, rootfs, security) as box:
        assert await echo(box, "jailer-test") == (0, "jailer-test")


def shim_pid(home: Path, box_id: str) -> int:
    """The process ID of the box's shim, as boxlite recorded it."""
    return int((home / "boxes" / box_id / "shim.pid").read_text().split()[0])


def descendants(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += descendants(int(child))
    return found


def namespaces(pid: int | str) -> dict[str, str]:
    """The namespaces of a process: the identity of each, by its kind."""
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in NAMESPACES}


def isolated_namespaces(pid: int, seconds: float = 10.0) -> set[str]:
    """The kinds of namespace that one process among `pid` and its descendants does not share with this one.

    Of several such processes the one with the most namespaces of its own counts. Waits up to `seconds` for a
    process that shares none, because bubblewrap creates its namespaces one after another.
    """
    own = namespaces("self")
    end = time.monotonic() + seconds
    best: set[str] = set()
    while best != set(NAMESPACES) and time.monotonic() < end:
        for process in descendants(pid):
            try:
                theirs = namespaces(process)
            except OSError:  # It ended, or this user may not look at it.
                continue
            apart = {kind for kind in NAMESPACES if theirs[kind] != own[kind]}
            best = max(best, apart, key=len)
        time.sleep(0.1)
    return best
