"""What a lane runs on, as its record has it."""

import os
import platform

import libvirt
import psutil

from lab.machine.acceleration import Acceleration
from lab.machine.connection import version
from lab.record import Host

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
