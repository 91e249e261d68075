"""The libvirt domain of a lane, as XML, and how its guest boots. https://libvirt.org/formatdomain.html"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from lab.base import host_table
from lab.base.architecture import AARCH64, X86_64, Architecture
from lab.base.errors import LabError
from lab.catalog import Firmware
from lab.images.store import BaseImage
from lab.machine import seed

# The lab marks its domains, so that it never touches a domain that is not its own.
METADATA = "https://boxlite.ai/lab/1"
ET.register_namespace("lab", METADATA)
# https://libvirt.org/drvqemu.html#pass-through-of-arbitrary-qemu-commands
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
ET.register_namespace("qemu", QEMU)

# The virtio-serial port of the guest's resident agent, as the guest sees it.
AGENT_PORT = "ai.boxlite.lab"
# What no emulated guest's kernel must check. The processor's counter goes on when a lane is forked, so that
# what the kernel waited for at the checkpoint seems to last since then ("rcu_preempt self-detected stall",
# "soft lockup"): the first gets the longest time, and the other, whose longest is 120 s, is not looked for.
UNCHECKED = ("rcupdate.rcu_cpu_stall_timeout=300", "nosoftlockup")

# libvirt 11.3's words if an ordinary user's hard limit for core files is finite. libvirt raises QEMU's limit to
# `max_core` of its configuration, by default unlimited; sudo and hardened hosts set the hard limit to 0.
CORE_LIMIT = "cannot limit core file size"
CORE_LIMIT_HINT = (
    "this login may not raise its limit for core files (ulimit -Hc), as in a shell that sudo started: log in "
    "without sudo, or put the line max_core = 0 into ~/.config/libvirt/qemu.conf; then end libvirt's session "
    "daemon: pkill -u $USER libvirtd"
)
DOCTOR_HINT = "lab doctor shows what keeps libvirt from starting machines"


def list_usual_arguments(architecture: Architecture) -> tuple[str, ...]:
    """What the kernel of each guest is told, whoever boots it."""
    return (*architecture.arguments, *UNCHECKED)


def kernel_arguments(architecture: Architecture) -> str:
    """What every kernel is told that QEMU loads itself."""
    always = " ".join(list_usual_arguments(architecture))
    return f"root=LABEL=root rw console={architecture.console} panic=-1 {always}"


class Network(StrEnum):
    """What a guest reaches through QEMU's own user network, which leads one port on 127.0.0.1 to its port 22.

    `CLOSED`: nothing. `OPEN` is for a guest that needs package sources: what the host reaches, and, behind
    the gateway's address, what listens on the host's 127.0.0.1.
    """

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True)
class KernelBoot:
    """QEMU loads the kernel itself."""

    kernel: Path
    initrd: Path
    arguments: str = ""


@dataclass(frozen=True)
class FirmwareBoot:
    """The loader on the disk is started: by the UEFI firmware in the file `uefi`, or by QEMU's own BIOS."""

    uefi: Path | None = None


class NoFirmware(LabError):
    """The host has no UEFI firmware for guests."""


def choose_boot(
    connection: libvirt.virConnect, image: BaseImage, arguments: str = ""
) -> KernelBoot | FirmwareBoot:
    """How this image boots; `arguments` are added to the kernel's command line.

    Raises NoFirmware.
    """
    if image.firmware is None:
        command_line = f"{kernel_arguments(image.architecture)} {arguments}".rstrip()
        return KernelBoot(image.kernel, image.initrd, command_line)
    return FirmwareBoot(find_uefi(connection, image.architecture) if image.firmware is Firmware.UEFI else None)


def check_emulator(connection: libvirt.virConnect, architecture: Architecture) -> None:
    """Raise LabError if libvirt knows no QEMU that emulates this architecture."""
    try:
        connection.getDomainCapabilities(None, architecture.name, architecture.machine_type, "qemu", 0)
    except libvirt.libvirtError as error:
        raise LabError(
            f"this host has no QEMU for guests of {architecture.name}: {error}",
            hint=f"{host_table.suggest_packages(f'{architecture.debian}.qemu')}; {architecture.setup} does it",
        ) from error


def find_uefi(connection: libvirt.virConnect, architecture: Architecture) -> Path:
    """The UEFI firmware for the lab's machines: the first one that libvirt lists. Raises NoFirmware.

    libvirt reads QEMU's descriptions of the installed firmware and omits what needs another machine type
    (Secure Boot needs q35): https://libvirt.org/formatdomaincaps.html#bios-bootloader
    """
    try:
        text = connection.getDomainCapabilities(None, architecture.name, architecture.machine_type, "qemu", 0)
    except libvirt.libvirtError as error:
        raise NoFirmware(f"libvirt cannot say which firmware is installed: {error}") from error
    files = [Path(value.text or "") for value in ET.fromstring(text).findall("os/loader/value")]
    if not files:
        raise NoFirmware(
            "no UEFI firmware for guests is installed",
            hint=f"{host_table.suggest_packages(f'{architecture.debian}.uefi')}; {architecture.setup} does it",
        )
    return files[0]


class Device(StrEnum):
    """A device of a machine; the value is the name of its file in the lane's folder.

    `AGENT` is the port of the guest's agent.
    """

    OVERLAY = "overlay.qcow2"
    SEED = "seed.iso"
    AGENT = "agent"


# The disks, in the order in which the guest has them: the format, and the guest's name.
DISKS = {Device.OVERLAY: ("qcow2", "vda"), Device.SEED: ("raw", "vdb")}


@dataclass(frozen=True)
class Hardware:
    """The definition of a machine: all of it that a guest can notice.

    A stored state fits no machine whose definition differs in any field. `environment` are variables of QEMU.
    `may_restart`: whether the guest may come back when it restarts itself.
    """

    kvm: bool
    memory_mib: int
    cpus: int
    boot: KernelBoot | FirmwareBoot
    architecture: Architecture
    devices: frozenset[Device] = frozenset(Device)
    network: Network = Network.CLOSED
    environment: Mapping[str, str] = field(default_factory=dict)
    may_restart: bool = False


@dataclass(frozen=True)
class MachinePlace:
    """Where on its host a machine is, which no guest notices: a stored state fits a machine in any place.

    `folder` is the lane's, whose name is the machine's. `port` on 127.0.0.1 leads to the guest's port 22.
    """

    folder: Path
    port: int
    console: str = "console.log"
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))


def start_machine(
    connection: libvirt.virConnect, hardware: Hardware, place: MachinePlace, *, paused: bool
) -> libvirt.virDomain:
    """Start a machine, which ends with the connection at the latest. Raises libvirtError if it is refused.

    `paused`: its processors stand still.
    """
    flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | (libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
    return connection.createXML(render_domain(hardware, place), flags)


def render_domain(hardware: Hardware, place: MachinePlace) -> str:
    domain = ET.Element("domain", type="kvm" if hardware.kvm else "qemu")
    _text(domain, "name", place.folder.name)
    _text(domain, "uuid", place.uuid)
    metadata = ET.SubElement(domain, "metadata")
    ET.SubElement(metadata, f"{{{METADATA}}}lane", id=place.folder.name)
    _text(domain, "memory", str(hardware.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(hardware.cpus))
    _boot(domain, hardware.boot, hardware.architecture)
    features = ET.SubElement(domain, "features")
    # libvirt wants ACPI of UEFI on x86-64, and refuses it without UEFI on arm64. There its tables name the
    # console, whatever a disk's own loader tells the kernel.
    if hardware.architecture is X86_64 or (isinstance(hardware.boot, FirmwareBoot) and hardware.boot.uefi):
        ET.SubElement(features, "acpi")
    if hardware.architecture is X86_64:
        ET.SubElement(features, "apic")
    else:
        ET.SubElement(features, "gic", version="3")
    # The most a guest can get; under emulation that includes SVM, so that boxlite's own
    # virtual machines run inside.
    processor = hardware.architecture.processor
    if hardware.kvm or processor == "max":
        ET.SubElement(domain, "cpu", mode="host-passthrough" if hardware.kvm else "maximum")
    else:
        _text(ET.SubElement(domain, "cpu", mode="custom", match="exact"), "model", processor, fallback="forbid")
    # A guest that restarts would come back in a state that its cells do not expect, so it dies instead.
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, event, "restart" if hardware.may_restart and event == "on_reboot" else "destroy")
    devices = ET.SubElement(domain, "devices")
    for device, (kind, target) in DISKS.items():
        if device in hardware.devices:
            _disk(devices, place.folder / device, kind, target)
    _network(domain, hardware.network, place.port)
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(place.folder / place.console))
    if Device.AGENT in hardware.devices:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "source", mode="bind", path=str(place.folder / Device.AGENT))
        ET.SubElement(channel, "target", type="virtio", name=AGENT_PORT)
    ET.SubElement(devices, "memballoon", model="none")
    random = ET.SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")
    if hardware.architecture is AARCH64:
        # For boxlite's own virtual machines the guest needs EL2. libvirt has no element for it.
        for word in ("-machine", "virtualization=on"):
            ET.SubElement(_command_line(domain), f"{{{QEMU}}}arg", value=word)
    for name, value in hardware.environment.items():
        ET.SubElement(_command_line(domain), f"{{{QEMU}}}env", name=name, value=value)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def choose_start_hint(error: libvirt.libvirtError, other: str = DOCTOR_HINT) -> str:
    """What to do where libvirt starts no machine: `other`, unless the error is known."""
    return CORE_LIMIT_HINT if CORE_LIMIT in str(error) else other


def find_lane_name(xml: str) -> str | None:
    """The lane that a domain's XML names, or None if the domain is not the lab's."""
    mark = ET.fromstring(xml).find(f"metadata/{{{METADATA}}}lane")
    return None if mark is None else mark.get("id")


def find_lane_folder(xml: str) -> Path | None:
    """The folder of a domain's overlay; None if the domain is not the lab's, or has no overlay."""
    disk = ET.fromstring(xml).find("devices/disk/source")
    return None if find_lane_name(xml) is None or disk is None else Path(disk.get("file", "")).parent


def _boot(domain: ET.Element, boot: KernelBoot | FirmwareBoot, architecture: Architecture) -> None:
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch=architecture.name, machine=architecture.machine_type)
    if isinstance(boot, KernelBoot):
        _text(system, "kernel", str(boot.kernel))
        _text(system, "initrd", str(boot.initrd))
        _text(system, "cmdline", boot.arguments)
        return
    if boot.uefi:
        # Stateless: UEFI keeps its variables in the guest's memory, so they are part of every snapshot and no
        # lane has a file for them. Without variables it starts the disk's EFI/BOOT/BOOT*.EFI.
        flash = {"type": "pflash", "readonly": "yes", "stateless": "yes"}
        if boot.uefi.suffix == ".qcow2":
            flash["format"] = "qcow2"  # Fedora's; the attribute needs libvirt 9.2.
        _text(system, "loader", str(boot.uefi), **flash)
    ET.SubElement(system, "boot", dev="hd")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _disk(devices: ET.Element, path: Path, kind: str, target: str) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    # Overlays are thrown away, so a write may be lost when the host dies.
    ET.SubElement(disk, "driver", name="qemu", type=kind, cache="unsafe", discard="unmap")
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    if kind == "raw":
        ET.SubElement(disk, "readonly")


def _network(domain: ET.Element, network: Network, port: int) -> None:
    # libvirt has no element for `restrict`, nor for a port that QEMU forwards. It leaves the slot free.
    closed = "on" if network is Network.CLOSED else "off"
    hostfwd = f"tcp:127.0.0.1:{port}-{seed.ADDRESS}:22"
    for word in (
        "-netdev",
        f"user,id=lab,net={seed.ADDRESS}/{seed.PREFIX},restrict={closed},hostfwd={hostfwd}",
        "-device",
        f"virtio-net-pci,netdev=lab,mac={seed.MAC},addr=0x10",
    ):
        ET.SubElement(_command_line(domain), f"{{{QEMU}}}arg", value=word)


def _command_line(domain: ET.Element) -> ET.Element:
    """The part of the XML with what libvirt passes to QEMU as it is."""
    tag = f"{{{QEMU}}}commandline"
    element = domain.find(tag)
    return ET.SubElement(domain, tag) if element is None else element
