"""A stand-in for a connection to libvirt: it starts machines in which nothing runs, and remembers them."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from lab.machine.domain import QEMU


def error_of(words: str) -> libvirt.libvirtError:
    """An error with these words; the binding puts in those of the last error, whoever met it."""
    error = libvirt.libvirtError(words)
    error.args, error.err = (words,), None
    return error


@dataclass
class Machine:
    """A machine as libvirt was told to start it."""

    xml: ET.Element
    flags: int
    daemon: "Daemon"
    is_there: bool = True

    @property
    def disks(self) -> list[str]:
        return [str(source.get("file")) for source in self.xml.findall("devices/disk/source")]

    @property
    def words(self) -> list[str]:
        """What QEMU gets besides, and the values of its variables."""
        return [str(word.get("value")) for word in self.xml.findall(f"{{{QEMU}}}commandline/*")]

    @property
    def environment(self) -> dict[str | None, str | None]:
        return {word.get("name"): word.get("value") for word in self.xml.iter(f"{{{QEMU}}}env")}

    def state(self) -> tuple[int, int]:
        return self.daemon.machine_state, 0

    def destroy(self) -> None:
        if not self.daemon.ends_machines:
            raise error_of("the daemon is gone")
        self.is_there = False


@dataclass
class Daemon:
    """`refuses` has the words by which machines are refused, by their kind: "kvm" or "qemu"."""

    qemu: int = 10_000_000
    library: int = 11_003_000
    uri: str = "qemu:///system"
    cpu: str = "<cpu><arch>x86_64</arch><model>EPYC</model></cpu>"
    firmware: tuple[Path, ...] = ()
    knows_firmware: bool = True
    refuses: dict[str, str] = field(default_factory=dict)
    machine_state: int = libvirt.VIR_DOMAIN_SHUTOFF
    is_alive: bool = True
    ends_machines: bool = True
    machines: list[Machine] = field(default_factory=list)

    def getVersion(self) -> int:  # noqa: N802
        return self.qemu

    def getLibVersion(self) -> int:  # noqa: N802
        return self.library

    def getURI(self) -> str:  # noqa: N802
        return self.uri

    def isAlive(self) -> bool:  # noqa: N802
        return self.is_alive

    def getCapabilities(self) -> str:  # noqa: N802
        return f"<capabilities><host>{self.cpu}</host></capabilities>"

    def getDomainCapabilities(self, *query: object) -> str:  # noqa: N802
        """As much as tells which UEFI firmware the lab's kind of machine can have."""
        assert query in ((None, "x86_64", "pc", "qemu", 0), (None, "aarch64", "virt", "qemu", 0))
        if not self.knows_firmware:
            raise error_of("not supported by this driver")
        values = "".join(f"<value>{file}</value>" for file in self.firmware)
        return f"<domainCapabilities><os><loader supported='yes'>{values}</loader></os></domainCapabilities>"

    def createXML(self, xml: str, flags: int) -> Machine:  # noqa: N802
        machine = Machine(ET.fromstring(xml), flags, self)
        if words := self.refuses.get(str(machine.xml.get("type"))):
            raise error_of(words)
        self.machines.append(machine)
        return machine
