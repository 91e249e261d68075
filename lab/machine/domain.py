"""The libvirt domain of a lane, as XML. https://libvirt.org/formatdomain.html"""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from lab.machine import seed

# The lab's own mark on its domains, so that it never touches one that is not its own.
METADATA = "https://boxlite.ai/lab/1"
ET.register_namespace("lab", METADATA)

KERNEL_ARGUMENTS = "root=LABEL=root rw console=ttyS0 panic=-1"


@dataclass(frozen=True)
class DomainSpec:
    """All that the XML says of one lane's machine. `port` on 127.0.0.1 leads to the guest's port 22.

    `arguments`: what the kernel is told beyond what every guest's is.
    """

    name: str
    lane: str
    kvm: bool
    memory_mib: int
    cpus: int
    kernel: Path
    initrd: Path
    console: Path
    arguments: str = ""
    disk: Path | None = None
    seed: Path | None = None
    port: int | None = None
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))


def to_xml(spec: DomainSpec) -> str:
    """The domain's XML."""
    domain = ET.Element("domain", type="kvm" if spec.kvm else "qemu")
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.uuid)
    metadata = ET.SubElement(domain, "metadata")
    ET.SubElement(metadata, f"{{{METADATA}}}lane", id=spec.lane)
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.cpus))
    system = ET.SubElement(domain, "os")
    # Not q35: each PCI bridge that firmware and kernel set up is a chance for emulated processors to trip over
    # a change of the memory map (QEMU's assertion in iotlb_to_section), and q35 has many.
    _text(system, "type", "hvm", arch="x86_64", machine="pc")
    _text(system, "kernel", str(spec.kernel))
    _text(system, "initrd", str(spec.initrd))
    _text(system, "cmdline", f"{KERNEL_ARGUMENTS} {spec.arguments}".rstrip())
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    # The most a guest can get either way; under emulation that includes SVM, so that boxlite's own
    # virtual machines run inside.
    ET.SubElement(domain, "cpu", mode="host-passthrough" if spec.kvm else "maximum")
    # A guest that restarts would come back in another state than its cells expect: it dies instead.
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, event, "destroy")
    devices = ET.SubElement(domain, "devices")
    if spec.disk:
        _disk(devices, spec.disk, "qcow2", "vda")
    if spec.seed:
        _disk(devices, spec.seed, "raw", "vdb")
    if spec.port is not None:
        _network(devices, spec.port)
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(spec.console))
    ET.SubElement(devices, "memballoon", model="none")
    random = ET.SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def lane_of(xml: str) -> str | None:
    """The lane that a domain's XML says it belongs to, or None for a domain that is not the lab's."""
    mark = ET.fromstring(xml).find(f"metadata/{{{METADATA}}}lane")
    return None if mark is None else mark.get("id")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _disk(devices: ET.Element, path: Path, kind: str, target: str) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    # Overlays are thrown away: nothing is lost when a write does not reach the platter.
    ET.SubElement(disk, "driver", name="qemu", type=kind, cache="unsafe", discard="unmap")
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    if kind == "raw":
        ET.SubElement(disk, "readonly")


def _network(devices: ET.Element, port: int) -> None:
    interface = ET.SubElement(devices, "interface", type="user")
    ET.SubElement(interface, "backend", type="passt")
    ET.SubElement(interface, "mac", address=seed.MAC)
    ET.SubElement(interface, "ip", address=seed.ADDRESS, family="ipv4", prefix=str(seed.PREFIX))
    ET.SubElement(interface, "model", type="virtio")
    forward = ET.SubElement(interface, "portForward", proto="tcp", address="127.0.0.1")
    ET.SubElement(forward, "range", start=str(port), to="22")
