"""The host of a run: what a lane runs on, as its record has it, and what a session does with the processors."""

import os
import platform
import threading
import time

import libvirt
import psutil

from lab.machine.acceleration import Acceleration
from lab.machine.connection import version
from lab.record import Host, ProcessorTime

# The environment variable with another name for this host than its node name.
NAME = "LAB_HOST_NAME"


def name() -> str:
    """What this host is called."""
    return os.environ.get(NAME) or platform.node()


def describe(opened: libvirt.virConnect, how: Acceleration) -> Host:
    """Describe this host, and the software with which it runs guests."""
    return Host(
        name=name(),
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
