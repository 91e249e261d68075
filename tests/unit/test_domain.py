from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.machine import domain, seed

SPEC = domain.DomainSpec(
    name="lab-debian-13-abc123",
    lane="lab-debian-13-abc123",
    kvm=False,
    memory_mib=2048,
    cpus=2,
    boot=domain.KernelBoot(Path("/store/vmlinuz"), Path("/store/initrd")),
    console=Path("/lane/console-1.log"),
    disk=Path("/lane/overlay.qcow2"),
    seed=Path("/lane/seed.iso"),
    payload=Path("/lane/payload.tar"),
    port=22100,
)


def xml_of(spec: domain.DomainSpec = SPEC) -> ET.Element:
    return ET.fromstring(domain.to_xml(spec))


def attributes(path: str, spec: domain.DomainSpec = SPEC) -> dict[str, str]:
    found = xml_of(spec).find(path)
    assert found is not None
    return found.attrib


@pytest.mark.parametrize(
    ("spec", "restrict"),
    [(SPEC, "on"), (replace(SPEC, network=domain.Network.OPEN), "off")],
    ids=["cell", "prepare"],
)
def test_a_guest_reaches_nothing_and_its_ssh_is_on_loopback(spec: domain.DomainSpec, restrict: str) -> None:
    xml = xml_of(spec)
    assert xml.find("devices/interface") is None
    words = [each.get("value") for each in xml.findall(f"{{{domain.QEMU}}}commandline/*")]
    assert words == [
        "-netdev",
        f"user,id=lab,net={seed.ADDRESS}/24,restrict={restrict},hostfwd=tcp:127.0.0.1:22100-{seed.ADDRESS}:22",
        "-device",
        f"virtio-net-pci,netdev=lab,mac={seed.MAC},addr=0x10",
    ]


def test_the_agent_s_port_leads_to_a_socket_of_the_lane_and_is_there_only_if_it_is_wanted() -> None:
    spec = replace(SPEC, agent=Path("/lane/agent"))
    assert attributes("devices/channel/source", spec) == {"mode": "bind", "path": "/lane/agent"}
    assert attributes("devices/channel/target", spec) == {"type": "virtio", "name": domain.AGENT_PORT}
    assert attributes("devices/channel", spec) == {"type": "unix"}
    assert xml_of().find("devices/channel") is None


def test_there_is_no_screen_to_reach() -> None:
    assert xml_of().find("devices/graphics") is None


@pytest.mark.parametrize(
    ("kvm", "kind", "cpu"), [(True, "kvm", "host-passthrough"), (False, "qemu", "maximum")]
)
def test_acceleration_decides_the_kind_and_the_processor(kvm: bool, kind: str, cpu: str) -> None:
    spec = replace(SPEC, kvm=kvm)
    assert xml_of(spec).get("type") == kind
    assert attributes("cpu", spec)["mode"] == cpu


@pytest.mark.parametrize("event", ["on_reboot", "on_poweroff", "on_crash"])
def test_a_guest_that_ends_is_not_started_again(event: str) -> None:
    assert xml_of().findtext(event) == "destroy"


def test_the_overlay_can_be_written_and_the_other_disks_cannot() -> None:
    disks = {
        disk.find("source").get("file"): disk.find("readonly") is not None  # type: ignore[union-attr]
        for disk in xml_of().findall("devices/disk")
    }
    assert disks == {"/lane/overlay.qcow2": False, "/lane/seed.iso": True, "/lane/payload.tar": True}


def test_a_machine_without_disk_or_port_has_neither() -> None:
    xml = xml_of(replace(SPEC, disk=None, seed=None, payload=None, port=None))
    assert [xml.find(path) for path in ("devices/disk", f"{{{domain.QEMU}}}commandline")] == [None, None]


BIOS = replace(SPEC, boot=domain.FirmwareBoot())
UEFI = replace(SPEC, boot=domain.FirmwareBoot(Path("/firmware/a&b/CODE.fd")))


@pytest.mark.parametrize("spec", [BIOS, UEFI], ids=["bios", "uefi"])
def test_with_a_firmware_the_loader_on_the_overlay_decides_what_is_booted(spec: domain.DomainSpec) -> None:
    system = xml_of(spec).find("os")
    assert system is not None
    assert [system.find(tag) for tag in ("kernel", "initrd", "cmdline")] == [None] * 3
    # libvirt boots from the first disk, which is the overlay: vda before the others.
    assert [boot.get("dev") for boot in system.findall("boot")] == ["hd"]
    targets = {
        disk.find("source").get("file"): disk.find("target").get("dev")  # type: ignore[union-attr]
        for disk in xml_of(spec).findall("devices/disk")
    }
    assert targets == {"/lane/overlay.qcow2": "vda", "/lane/seed.iso": "vdb", "/lane/payload.tar": "vdc"}


def test_the_bios_is_qemu_s_own() -> None:
    assert xml_of(BIOS).find("os/loader") is None


def test_uefi_has_no_flash_that_can_be_written() -> None:
    # A writable NVRAM would be a file of each lane and a block device that internal snapshots leave out.
    loaders = xml_of(UEFI).findall("os/loader")
    assert [(loader.text, loader.attrib) for loader in loaders] == [
        ("/firmware/a&b/CODE.fd", {"type": "pflash", "readonly": "yes", "stateless": "yes"})
    ]
    assert xml_of(UEFI).find("os/nvram") is None


def test_a_firmware_in_qcow2_is_read_as_that() -> None:
    spec = replace(SPEC, boot=domain.FirmwareBoot(Path("/firmware/CODE.qcow2")))
    assert attributes("os/loader", spec)["format"] == "qcow2"


@pytest.mark.parametrize("event", ["on_reboot", "on_poweroff", "on_crash"])
def test_a_guest_that_may_restart_itself_still_ends_where_it_powers_off_or_crashes(event: str) -> None:
    expected = "restart" if event == "on_reboot" else "destroy"
    assert xml_of(replace(SPEC, may_restart=True)).findtext(event) == expected


def test_a_kernel_that_qemu_loads_is_given_its_arguments() -> None:
    found = [xml_of().findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")]
    assert found == ["/store/vmlinuz", "/store/initrd", domain.KERNEL_ARGUMENTS]
    assert xml_of().find("os/boot") is None


def test_names_with_xml_in_them_stay_names() -> None:
    assert xml_of(replace(SPEC, name="a<b>&c")).findtext("name") == "a<b>&c"


def test_the_lane_is_read_back_from_the_lab_s_own_domains() -> None:
    assert domain.lane_of(domain.to_xml(SPEC)) == SPEC.lane


@pytest.mark.parametrize(
    "xml",
    [
        "<domain><name>lab-debian-13-abc123</name></domain>",
        "<domain><metadata/></domain>",
        "<domain><metadata><lane id='lab-debian-13-abc123'/></metadata></domain>",
        "<domain><metadata><o:lane xmlns:o='https://example.org/' id='x'/></metadata></domain>",
    ],
)
def test_other_domains_have_no_lane(xml: str) -> None:
    assert domain.lane_of(xml) is None
