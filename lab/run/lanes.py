"""The lanes of a run: their names, and the host that they run on."""

import os
import platform
from collections import Counter
from collections.abc import Iterable

import libvirt
import psutil

from lab.machine.acceleration import Acceleration
from lab.machine.connection import format_version
from lab.record import Host, LaneRecord

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


def describe_host(connection: libvirt.virConnect, acceleration: Acceleration) -> Host:
    """Describe this host, and the software with which it runs guests."""
    return Host(
        name=os.environ.get(HOST_NAME) or platform.node(),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        cpus=os.cpu_count() or 1,
        memory_mib=psutil.virtual_memory().total // 2**20,
        libvirt=format_version(connection.getLibVersion()),
        qemu=format_version(connection.getVersion()),
        connect=connection.getURI(),
        acceleration=acceleration.name,
        acceleration_reason=acceleration.reason,
    )
