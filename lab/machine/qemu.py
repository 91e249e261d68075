"""The processes of the lab's machines: each is a QEMU, which has the machine's name on its command line."""

from collections.abc import Iterator
from contextlib import suppress

import psutil

# How long a QEMU may take to end when it is asked to.
END_SECONDS = 5.0


def processes_of(machine: str) -> Iterator[psutil.Process]:
    """The QEMU of the machine with this name; none if it has ended."""
    for process in psutil.process_iter():
        # Processes end at any time.
        with suppress(psutil.Error):
            words = process.cmdline() if process.name().startswith("qemu") else ()
            if any(f"guest={machine}," in word for word in words):
                yield process


def processor_seconds(machine: str) -> float:
    """The seconds of processor time that a machine's QEMU has taken so far; 0 without a process.

    They include the time of the guest, under KVM too.
    """
    total = 0.0
    for process in processes_of(machine):
        with suppress(psutil.Error):
            spent = process.cpu_times()
            total += spent.user + spent.system
    return round(total, 2)


def end(machine: str) -> None:
    """End a machine's QEMU, as far as this user may."""
    for process in processes_of(machine):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(END_SECONDS)
