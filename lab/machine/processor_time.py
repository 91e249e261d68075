"""How much processor time a lane's QEMU has taken."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import psutil

# Returns all processes of the host.
Processes = Callable[[], Iterable[psutil.Process]]


def of_lane(lane: str, processes: Processes = psutil.process_iter) -> float:
    """The seconds of processor time that a lane's QEMU has taken so far; 0 without a process.

    They include the time of the guest, under KVM too.
    """
    total = 0.0
    for process in of_machine(lane, processes):
        with suppress(psutil.Error):
            spent = process.cpu_times()
            total += spent.user + spent.system
    return round(total, 2)


def of_machine(name: str, processes: Processes = psutil.process_iter) -> Iterator[psutil.Process]:
    """The QEMU of a machine of libvirt's with this name, which is on its command line; none if it has ended."""
    for process in processes():
        # Processes end at any time.
        with suppress(psutil.Error):
            words = process.cmdline() if process.name().startswith("qemu") else ()
            if any(f"guest={name}," in word for word in words):
                yield process
