"""The lanes of a run: their names, the host that they run on, and what they take of its processors."""

import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Iterable

import libvirt
import psutil

from lab.machine.acceleration import Acceleration
from lab.machine.connection import version
from lab.record import Host, LaneRecord, ProcessorTime

# The environment variable with another name for this host than its node name.
HOST_NAME = "LAB_HOST_NAME"
# Between the machine's name and the number in the label of a lane; the first lane of a machine has no number.
NUMBERED = " #"


class Labels:
    """Gives each lane of a run a label of its own, and counts on from the lanes that are there already."""

    def __init__(self, lanes: Iterable[LaneRecord] = ()) -> None:
        self._last: Counter[str] = Counter()
        for lane in lanes:
            machine, _, number = lane.label.partition(NUMBERED)
            self._last[machine] = max(self._last[machine], int(number) if number.isdecimal() else 1)

    def next(self, machine: str) -> str:
        """The label of the machine's next lane."""
        self._last[machine] += 1
        number = self._last[machine]
        return machine if number == 1 else f"{machine}{NUMBERED}{number}"


def host_name() -> str:
    """What this host is called."""
    return os.environ.get(HOST_NAME) or platform.node()


def describe_host(opened: libvirt.virConnect, how: Acceleration) -> Host:
    """Describe this host, and the software with which it runs guests."""
    return Host(
        name=host_name(),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        cpus=os.cpu_count() or 1,
        memory_mib=psutil.virtual_memory().total // 2**20,
        libvirt=version(opened.getLibVersion()),
        qemu=version(opened.getVersion()),
        connect=opened.getURI(),
        acceleration=how.name,
        acceleration_reason=how.reason,
    )


class Meter:
    """Measures from its making on. Lanes tell it from their own threads what their machines took."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lab = _lab()
        self._idle = _idle()
        self._lanes = 0.0
        self._lock = threading.Lock()

    def add_lane(self, seconds: float) -> None:
        """Add the processor time of a lane that is at its end."""
        with self._lock:
            self._lanes += seconds

    def read(self) -> ProcessorTime:
        """What was spent so far."""
        with self._lock:
            return ProcessorTime(
                processors=os.cpu_count() or 1,
                wall=round(time.monotonic() - self._start, 1),
                lanes=round(self._lanes, 1),
                lab=round(_lab() - self._lab, 2),
                # The kernel may count less waiting for a disk than before.
                idle=max(0.0, round(_idle() - self._idle, 1)),
            )


def _lab() -> float:
    """Seconds of processor time of this process, and of those that it started and waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _idle() -> float:
    """Seconds in which the host's processors had nothing to do, since it was booted."""
    spent = psutil.cpu_times()
    return float(spent.idle + spent.iowait)
