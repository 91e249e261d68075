"""A slower clock for emulated guests, so that limits inside them fit the speed of an emulated processor.

boxlite gives a box 30 s to start, whatever the processor. An emulated one is ten times slower than those that
this limit was made for, and a busy host makes it slower still. So libfaketime, preloaded into QEMU, gives it a
clock that runs at `RATE`. All of a guest's clocks follow: timers, the time of day, and the processor's counter,
which the kernel calibrates against a timer. Gupta et al. call that time dilation ("To Infinity and Beyond:
Time-Warped Network Emulation", NSDI 2006).
"""

import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from lab.base import host_table
from lab.base.paths import Paths
from lab.machine import qemu, throwaway

# Seconds of an emulated guest's clock in each real second. docs/measurements/guest-clock.md says what other
# rates cost.
RATE = 0.1
# Where Debian, Ubuntu and Fedora have libfaketime's library for programs with threads.
FOLDERS = (Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime"), Path("/usr/lib64/faketime"))
FILE = "libfaketimeMT.so.1"
# What a process has loaded.
MAPS = "/proc/{}/maps"


@dataclass(frozen=True)
class Clock:
    """The clock of a machine: `rate` seconds of its own in each real second.

    `environment` are the variables of QEMU that make it so. `reason` says why an emulated guest has the host's
    clock; it is empty if it has a slower one.
    """

    rate: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    reason: str = ""


REAL = Clock()
clocks_by_uri: dict[str, Clock] = {}
_lock = threading.Lock()


def find_library() -> Path | None:
    """The library of libfaketime on this host; None without one."""
    return next((folder / FILE for folder in FOLDERS if (folder / FILE).is_file()), None)


def find_emulated_clock() -> Clock:
    """The slower clock if this host has the library; whether libvirt's QEMU may load it is not asked."""
    file = find_library()
    if file is None:
        return Clock(reason=f"libfaketime is not installed ({host_table.suggest_packages('clock')})")
    # https://github.com/wolfcw/libfaketime: the rate from QEMU's start on, not for the times of files, without
    # shared memory: each QEMU that is killed would leave its own in /dev/shm.
    variables = {
        "LD_PRELOAD": str(file),
        "FAKETIME": f"+0 x{RATE}",
        "NO_FAKE_STAT": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }
    return Clock(RATE, variables)


def choose_emulated_clock(connection: libvirt.virConnect, paths: Paths) -> Clock:
    """The clock of emulated guests on this host: the slower one if QEMU can load what makes it.

    Found out once in the life of a process, by what the QEMU of a machine that stands still has loaded. Raises
    libvirtError if libvirt starts no machine.
    """
    slower = find_emulated_clock()
    if slower.reason:
        return slower
    uri = connection.getURI()
    with _lock:
        if uri not in clocks_by_uri:
            with throwaway.open_machine(connection, paths, environment=slower.environment) as (_, console):
                why_not = explain_missing_clock(slower, console.parent.name)
            clocks_by_uri[uri] = Clock(reason=why_not) if why_not else slower
        return clocks_by_uri[uri]


def explain_missing_clock(clock: Clock, machine: str) -> str:
    """Why the machine of this name has not this clock; empty if it has. Its QEMU is looked at."""
    file = clock.environment.get("LD_PRELOAD")
    if not file or any(_has_loaded(Path(file), process.pid) for process in qemu.find_processes(machine)):
        return ""
    return f"libvirt starts QEMU without {file}: something on this host confines it"


def _has_loaded(file: Path, process: int) -> bool:
    try:
        return str(file.resolve()) in Path(MAPS.format(process)).read_text()
    except OSError:
        return False
