"""How a guest boots: QEMU loads its kernel, or a firmware starts the boot loader on its disk."""

from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from lab.base import host_table
from lab.base.errors import LabError
from lab.catalog import Firmware
from lab.images.store import BaseImage
from lab.machine import domain
from lab.machine.domain import FirmwareBoot, KernelBoot


class NoFirmware(LabError):
    """The host has no UEFI firmware for guests."""


def boot_of(connection: libvirt.virConnect, image: BaseImage, arguments: str = "") -> KernelBoot | FirmwareBoot:
    """How this image boots; `arguments` are added to the kernel's command line.

    Raises NoFirmware.
    """
    if image.firmware is None:
        told = f"{domain.KERNEL_ARGUMENTS} {arguments}".rstrip()
        return KernelBoot(image.kernel, image.initrd, told)
    return FirmwareBoot(uefi(connection) if image.firmware is Firmware.UEFI else None)


def uefi(connection: libvirt.virConnect) -> Path:
    """The UEFI firmware for the lab's machines: the first one that libvirt lists. Raises NoFirmware.

    libvirt reads QEMU's descriptions of the installed firmware and omits what needs another machine type
    (Secure Boot needs q35): https://libvirt.org/formatdomaincaps.html#bios-bootloader
    """
    try:
        text = connection.getDomainCapabilities(None, domain.ARCHITECTURE, domain.MACHINE, "qemu", 0)
    except libvirt.libvirtError as error:
        raise NoFirmware(f"libvirt cannot say which firmware is installed: {error}") from error
    files = [Path(value.text or "") for value in ET.fromstring(text).findall("os/loader/value")]
    if not files:
        raise NoFirmware(
            "no UEFI firmware for guests is installed",
            hint=f"{host_table.install('uefi')}; ./setup.sh doctor does it",
        )
    return files[0]
