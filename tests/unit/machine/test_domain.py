"""The XML of a lane's machine, and how its guest boots."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.base.architecture import AARCH64, X86_64
from lab.base.errors import LabError
from lab.catalog import Firmware
from lab.machine import domain, seed
from lab.machine.domain import (
    Device,
    FirmwareBoot,
    Hardware,
    KernelBoot,
    MachinePlace,
    Network,
    NoFirmware,
)
from tests.builders.daemon import Daemon
from tests.builders.guests import base_image

pytestmark = pytest.mark.usefixtures("x86_64_host")
KERNEL_ARGUMENTS = domain.kernel_arguments(X86_64)
PLACE = MachinePlace(Path("/lanes/lab-debian-13-abc123"), 22100)
LANE = frozenset(Device) - {Device.AGENT}
SPEC = Hardware(
    kvm=False,
    memory_mib=2048,
    cpus=2,
    boot=KernelBoot(Path("/store/vmlinuz"), Path("/store/initrd"), KERNEL_ARGUMENTS),
    architecture=X86_64,
    devices=LANE,
)
KVM = replace(SPEC, kvm=True)
AGENT = replace(SPEC, devices=frozenset(Device))
BARE = replace(SPEC, devices=frozenset())
BIOS = replace(SPEC, boot=FirmwareBoot())
UEFI = replace(SPEC, boot=FirmwareBoot(Path("/firmware/a&b/CODE.fd")))
QCOW2 = replace(SPEC, boot=FirmwareBoot(Path("/firmware/CODE.qcow2")))
RESTARTS = replace(SPEC, may_restart=True)
ARM = replace(SPEC, architecture=AARCH64)
ARM_UEFI = replace(UEFI, architecture=AARCH64)
FLASH = {"type": "pflash", "readonly": "yes", "stateless": "yes"}
COMMAND_LINE = f"{{{domain.QEMU}}}commandline"
FIRST, SECOND = Path("/firmware/CODE_4M.fd"), Path("/firmware/CODE.fd")


def xml_of(hardware: Hardware = SPEC, place: MachinePlace = PLACE) -> ET.Element:
    return ET.fromstring(domain.render_domain(hardware, place))


def test_a_machine_has_the_name_of_its_folder() -> None:
    assert xml_of(place=replace(PLACE, folder=Path("/lanes/a<b>&c"))).findtext("name") == "a<b>&c"


@pytest.mark.parametrize(
    ("spec", "path", "text"),
    [
        (SPEC, "os/kernel", "/store/vmlinuz"),
        (SPEC, "os/initrd", "/store/initrd"),
        (SPEC, "os/cmdline", KERNEL_ARGUMENTS),
        # A guest that ends is not started again, unless it may restart itself.
        *((SPEC, event, "destroy") for event in ("on_reboot", "on_poweroff", "on_crash")),
        (RESTARTS, "on_reboot", "restart"),
        (RESTARTS, "on_poweroff", "destroy"),
        (RESTARTS, "on_crash", "destroy"),
        (UEFI, "os/loader", "/firmware/a&b/CODE.fd"),
        # One whose timers QEMU saves with a machine's state.
        (ARM, "cpu/model", "cortex-a35"),
    ],
)
def test_what_the_xml_says(spec: Hardware, path: str, text: str) -> None:
    assert xml_of(spec).findtext(path) == text


@pytest.mark.parametrize(
    ("spec", "path", "attributes"),
    [
        (SPEC, ".", {"type": "qemu"}),
        (SPEC, "cpu", {"mode": "maximum"}),
        (ARM, "os/type", {"arch": "aarch64", "machine": "virt"}),
        (ARM, "features/*", {"version": "3"}),
        # One that stands still.
        (replace(ARM, boot=FirmwareBoot()), "features/*", {"version": "3"}),
        (ARM_UEFI, "features/gic", {"version": "3"}),
        # libvirt refuses it without UEFI on arm64, and UEFI without it on x86-64.
        (ARM_UEFI, "features/acpi", {}),
        (UEFI, "features/acpi", {}),
        (ARM_UEFI, "os/loader", FLASH),
        (replace(ARM, kvm=True), "cpu", {"mode": "host-passthrough"}),
        (KVM, ".", {"type": "kvm"}),
        (KVM, "cpu", {"mode": "host-passthrough"}),
        (AGENT, "devices/channel", {"type": "unix"}),
        (AGENT, "devices/channel/source", {"mode": "bind", "path": "/lanes/lab-debian-13-abc123/agent"}),
        (AGENT, "devices/channel/target", {"type": "virtio", "name": domain.AGENT_PORT}),
        # libvirt boots from the first disk, which is the overlay.
        (BIOS, "os/boot", {"dev": "hd"}),
        (UEFI, "os/boot", {"dev": "hd"}),
        (UEFI, "os/loader", FLASH),
        (QCOW2, "os/loader", FLASH | {"format": "qcow2"}),
    ],
)
def test_with_which_attributes_it_says_so(spec: Hardware, path: str, attributes: dict[str, str]) -> None:
    assert [element.attrib for element in xml_of(spec).findall(path)] == [attributes]


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        # Nothing of it can be reached but the port that QEMU forwards.
        (SPEC, ["devices/graphics", "devices/interface", "devices/channel", "os/boot", "os/loader"]),
        (BARE, ["devices/disk", "devices/channel"]),
        # The loader on the overlay decides what is booted.
        (BIOS, ["os/kernel", "os/initrd", "os/cmdline", "os/loader"]),
        # A writable NVRAM would be a file of each lane and a block device that internal snapshots leave out.
        (UEFI, ["os/kernel", "os/initrd", "os/cmdline", "os/nvram"]),
    ],
)
def test_what_is_not_in_the_xml(spec: Hardware, paths: list[str]) -> None:
    assert [xml_of(spec).find(path) for path in paths] == [None] * len(paths)


@pytest.mark.parametrize("spec", [SPEC, BIOS, UEFI], ids=["kernel", "bios", "uefi"])
def test_the_overlay_comes_first_and_can_be_written_and_the_other_disks_cannot(spec: Hardware) -> None:
    disks = [
        (
            disk.find("source").get("file"),  # type: ignore[union-attr]
            disk.find("target").get("dev"),  # type: ignore[union-attr]
            disk.find("readonly") is not None,
        )
        for disk in xml_of(spec).findall("devices/disk")
    ]
    assert disks == [
        ("/lanes/lab-debian-13-abc123/overlay.qcow2", "vda", False),
        ("/lanes/lab-debian-13-abc123/seed.iso", "vdb", True),
    ]


@pytest.mark.parametrize(("network", "restrict"), [(Network.CLOSED, "on"), (Network.OPEN, "off")])
def test_a_guest_reaches_nothing_and_its_ssh_is_on_loopback(network: Network, restrict: str) -> None:
    words = [word.get("value") for word in xml_of(replace(SPEC, network=network)).findall(f"{COMMAND_LINE}/*")]
    assert words == [
        "-netdev",
        f"user,id=lab,net={seed.ADDRESS}/24,restrict={restrict},hostfwd=tcp:127.0.0.1:22100-{seed.ADDRESS}:22",
        "-device",
        f"virtio-net-pci,netdev=lab,mac={seed.MAC},addr=0x10",
    ]


@pytest.mark.parametrize("kvm", [False, True])
def test_a_guest_of_arm64_has_kvm(kvm: bool) -> None:
    given = [word.get("value") for word in xml_of(replace(ARM, kvm=kvm)).findall(f"{COMMAND_LINE}/*")]
    assert given[4:] == ["-machine", "virtualization=on"]


def test_a_host_without_the_emulator_is_told_what_to_do() -> None:
    domain.check_emulator(Daemon(knows_firmware=True), AARCH64)
    with pytest.raises(LabError, match="no QEMU for guests of aarch64") as error:
        domain.check_emulator(Daemon(knows_firmware=False), AARCH64)
    assert "--with=arm64" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("xml", "lane"),
    [
        (domain.render_domain(SPEC, PLACE), PLACE.folder.name),
        ("<domain><name>lab-debian-13-abc123</name></domain>", None),
        ("<domain><metadata/></domain>", None),
        ("<domain><metadata><lane id='lab-debian-13-abc123'/></metadata></domain>", None),
        ("<domain><metadata><o:lane xmlns:o='https://example.org/' id='x'/></metadata></domain>", None),
    ],
    ids=["the lab's own", "its name alone", "no mark", "no namespace", "another namespace"],
)
def test_the_lane_is_read_back_from_the_lab_s_own_domains_alone(xml: str, lane: str | None) -> None:
    assert domain.find_lane_name(xml) == lane


# -- how a guest boots


@pytest.mark.parametrize(
    ("firmware", "arguments", "boot"),
    [
        # For these no firmware is looked for.
        (None, "", KernelBoot(Path("/store/vmlinuz"), Path("/store/initrd"), KERNEL_ARGUMENTS)),
        (
            None,
            "security=selinux enforcing=1",
            KernelBoot(
                Path("/store/vmlinuz"),
                Path("/store/initrd"),
                f"{KERNEL_ARGUMENTS} security=selinux enforcing=1",
            ),
        ),
        (Firmware.BIOS, "", FirmwareBoot()),
        # The first that libvirt names for the lab's kind of machine.
        (Firmware.UEFI, "", FirmwareBoot(FIRST)),
    ],
)
def test_the_image_decides_how_a_guest_boots(
    firmware: Firmware | None, arguments: str, boot: KernelBoot | FirmwareBoot
) -> None:
    daemon = Daemon(firmware=(FIRST, SECOND), knows_firmware=firmware is Firmware.UEFI)
    assert domain.choose_boot(daemon, base_image(Path("/store"), firmware), arguments) == boot


@pytest.mark.parametrize(
    ("daemon", "problem", "hint"),
    [
        (Daemon(), "no UEFI firmware", "ovmf"),
        (Daemon(knows_firmware=False), "libvirt cannot say which firmware", ""),
    ],
)
def test_a_host_without_uefi_is_told_what_to_do(daemon: Daemon, problem: str, hint: str) -> None:
    with pytest.raises(NoFirmware, match=problem) as error:
        domain.find_uefi(daemon, X86_64)
    assert hint in (error.value.hint or "")
