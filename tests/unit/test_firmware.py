from pathlib import Path

import libvirt
import pytest

from lab.catalog import Firmware
from lab.machine import domain
from lab.machine.domain import KERNEL_ARGUMENTS, FirmwareBoot, KernelBoot, NoFirmware
from tests.builders.guests import base_image, domain_capabilities

FIRST, SECOND = Path("/firmware/CODE_4M.fd"), Path("/firmware/CODE.fd")


class Daemon:
    """As much of a connection to libvirt as tells what is installed."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        self.asked: list[tuple[object, ...]] = []

    def getDomainCapabilities(self, *arguments: object) -> str:  # noqa: N802
        self.asked.append(arguments)
        return domain_capabilities(*self.files)


class Failing:
    def getDomainCapabilities(self, *_: object) -> str:  # noqa: N802
        raise libvirt.libvirtError("not supported by this driver")


def test_a_built_image_s_kernel_is_loaded_by_qemu_and_no_firmware_is_looked_for() -> None:
    image = base_image(Path("/store/debian-13"))
    assert domain.boot_of(Failing(), image) == KernelBoot(image.kernel, image.initrd, KERNEL_ARGUMENTS)
    told = domain.boot_of(Failing(), image, "security=selinux enforcing=1")
    assert told == KernelBoot(image.kernel, image.initrd, f"{KERNEL_ARGUMENTS} security=selinux enforcing=1")


def test_for_the_bios_no_firmware_is_looked_for() -> None:
    assert domain.boot_of(Failing(), base_image(Path("/store"), Firmware.BIOS)) == FirmwareBoot()


def test_uefi_is_the_first_that_libvirt_names_for_the_lab_s_kind_of_machine() -> None:
    daemon = Daemon(FIRST, SECOND)
    assert domain.boot_of(daemon, base_image(Path("/store"), Firmware.UEFI)) == FirmwareBoot(FIRST)
    assert daemon.asked == [(None, "x86_64", "pc", "qemu", 0)]


def test_a_host_without_uefi_is_told_what_to_install() -> None:
    with pytest.raises(NoFirmware, match="no UEFI firmware") as error:
        domain.uefi(Daemon())
    assert "ovmf" in (error.value.hint or "")


def test_a_libvirt_that_cannot_tell_is_named() -> None:
    with pytest.raises(NoFirmware, match="libvirt cannot say which firmware"):
        domain.uefi(Failing())
