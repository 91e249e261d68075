"""How much processor time a lane's processes have taken: its QEMU and its passt."""

from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

PROGRAMS = ("qemu", "passt")


def of_lane(
    lane: str,
    port: int,
    processes: Callable[[], Iterable[psutil.Process]] = psutil.process_iter,
) -> float:
    """The seconds of processor time that a lane's processes have taken so far; 0 without a process.

    QEMU is known by the lane's name on its command line, passt by the lane's port. QEMU's time includes that of
    the guest, under KVM too.
    """
    marks = (f"guest={lane},", f"127.0.0.1/{port}:22")
    total = 0.0
    for process in processes():
        # Processes end at any time.
        with suppress(psutil.Error):
            if process.name().startswith(PROGRAMS) and _has(process.cmdline(), marks):
                spent = process.cpu_times()
                total += spent.user + spent.system
    return round(total, 2)


def _has(command: list[str], marks: Iterable[str]) -> bool:
    return any(mark in word for word in command for mark in marks)
