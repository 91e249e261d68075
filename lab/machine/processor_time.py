"""How much processor time a lane's processes have taken: its QEMU and its passt."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import psutil

# Returns all processes of the host.
Processes = Callable[[], Iterable[psutil.Process]]

PROGRAMS = ("qemu", "passt")


def of_lane(lane: str, port: int, processes: Processes = psutil.process_iter) -> float:
    """The seconds of processor time that a lane's processes have taken so far; 0 without a process.

    QEMU is known by the lane's name on its command line, passt by the lane's port. QEMU's time includes that of
    the guest, under KVM too.
    """
    total = 0.0
    for process in _marked(processes, f"guest={lane},", f"127.0.0.1/{port}:22"):
        with suppress(psutil.Error):
            spent = process.cpu_times()
            total += spent.user + spent.system
    return round(total, 2)


def of_machine(name: str, processes: Processes = psutil.process_iter) -> Iterator[psutil.Process]:
    """The QEMU process of a machine of libvirt's with this name; none if it has ended."""
    return _marked(processes, f"guest={name},")


def _marked(processes: Processes, *marks: str) -> Iterator[psutil.Process]:
    for process in processes():
        # Processes end at any time.
        with suppress(psutil.Error):
            words = process.cmdline() if process.name().startswith(PROGRAMS) else ()
            if any(mark in word for mark in marks for word in words):
                yield process
