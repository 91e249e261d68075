"""The lanes of a run: their names, the host that they run on, and what they take of its processors."""

import os
import platform
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


def describe_host(opened: libvirt.virConnect, how: Acceleration) -> Host:
    """Describe this host, and the software with which it runs guests."""
    return Host(
        name=os.environ.get(HOST_NAME) or platform.node(),
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


def clocks() -> tuple[float, float, float]:
    """Seconds by now: on the clock, of processor time of the lab, and in which the host's processors were idle.

    The lab is this process and those that it started and waited for.
    """
    lab, host = os.times(), psutil.cpu_times()
    spent = lab.user + lab.system + lab.children_user + lab.children_system
    return time.monotonic(), spent, float(host.idle + host.iowait)


def processor_time(since: tuple[float, float, float], opened: Iterable[LaneRecord]) -> ProcessorTime:
    """What a session with these lanes did with the host's processors; `since` are the clocks at its start."""
    wall, lab, idle = (now - before for now, before in zip(clocks(), since, strict=True))
    return ProcessorTime(
        processors=os.cpu_count() or 1,
        wall=round(wall, 1),
        lanes=round(sum(lane.processor_seconds or 0.0 for lane in opened), 1),
        lab=round(lab, 2),
        # The kernel may count less waiting for a disk than before.
        idle=max(0.0, round(idle, 1)),
    )
