"""Things to test with, and other processes to test against."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from lab.base.wait import Deadline, wait_for
from lab.catalog import Firmware
from lab.images.store import BaseImage, Manifest
from lab.record import CellResult, Expectation, RunInfo, RunResult, Status

LOCK_HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("locked", flush=True)
sys.stdin.read()
"""

LANE_HOLDER = """
import sys
from pathlib import Path
from lab.machine import leftovers, ports
from lab.base.paths import Paths
ports.FIRST, ports.LAST = 23150, 23199
base = Path(sys.argv[1])
paths = Paths(cache=base / "cache", state=base / "state")
port = ports.reserve(paths.make(paths.ports))
with leftovers.lane_folder(paths, guest="debian-13", uri="test:///default", port=port.number) as folder:
    print(folder.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(program: str, *arguments: object) -> Iterator[tuple[psutil.Process, str]]:
    """A Python program in its own process and the first line it prints; killed at the end of the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            yield psutil.Process(child.pid), child.stdout.readline().strip()
        finally:
            child.kill()


def wait_until_ended(pid: int) -> None:
    """Wait until a process is gone; one that nobody has collected yet counts as gone."""

    def ended() -> bool | None:
        try:
            return True if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return True

    wait_for(ended, Deadline(20, f"the end of process {pid}"), interval=0.02)


def cell(guest: str = "debian-13", variant: str = "stock", **more: Any) -> CellResult:
    wanted: dict[str, Any] = {"build": "0.10.8", "status": Status.PASS, "expected": Expectation()}
    return CellResult(guest=guest, variant=variant, **(wanted | more))


def run_of(*cells: CellResult, **more: Any) -> RunResult:
    started = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)
    info = RunInfo(id="20261124-160000", started=started, command="lab matrix", lab="0.1.0", **more)
    return RunResult(run=info, cells=list(cells))


def base_image(folder: Path, firmware: Firmware | None = None) -> BaseImage:
    manifest = Manifest(guest="debian-13", inputs="0" * 64, disk_sha256="1" * 64, built="today", seconds=1.0)
    return BaseImage(folder, manifest, firmware)


def domain_capabilities(*firmware: Path) -> str:
    """As much of what libvirt says of a kind of machine as tells which UEFI firmware it can have."""
    values = "".join(f"<value>{file}</value>" for file in firmware)
    return f"<domainCapabilities><os><loader supported='yes'>{values}</loader></os></domainCapabilities>"
