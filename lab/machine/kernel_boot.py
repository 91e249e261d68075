"""Booting a guest's kernel until it starts user space: whether it gets there, and how long that takes."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt

from lab.base import scratch
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, wait_for
from lab.images.store import BaseImage
from lab.machine import domain, firmware, leftovers, overlay
from lab.machine.connection import NoLibvirt
from lab.machine.domain import DomainSpec, KernelBoot

# The kernel prints this when it starts the init of the initial RAM disk: all of its own start-up has run.
KERNEL_RAN = "Run /init as init process"
# With the kernel's own clock before it, which does not count how long QEMU and a boot loader took.
RAN_AT = re.compile(rf"\[ *(\d{{1,6}}\.\d{{1,9}})\] {KERNEL_RAN}")
# Under emulation it took 8 to 17 s in all, at a load of 7 to 9 on two processors. KVM on an emulated host is as
# slow, and such a host is the slower the more it has to do.
LIMIT_SECONDS = 120.0
FOLDER = "kvm-probe-"
# Enough for the initial RAM disk of any distribution.
MIB = 1024


@dataclass(frozen=True)
class Booted:
    """How the boot of a kernel ended: `failure` says why no user space was started, and is empty if it was.

    `seconds` is how long that took on the kernel's own clock; None if its console does not say. A boot that met
    the limit took at least that long. `refused`: libvirt did not start the machine, so no kernel ran.
    """

    seconds: float | None = None
    failure: str = ""
    refused: bool = False


def seconds_of(console: str) -> float | None:
    """How long the newest boot on this console took until the kernel started user space, on its own clock.

    None if the console does not show it, as with a kernel that was told to be quiet.
    """
    found = RAN_AT.findall(console)
    return float(found[-1]) if found else None


def boot(connection: libvirt.virConnect, paths: Paths, image: BaseImage, *, kvm: bool) -> Booted:
    """Boot the image's kernel until it starts user space; nothing of it is left.

    Raises NoLibvirt, LeftBehind.
    """
    uri = connection.getURI()
    with scratch.make_in(paths.make(paths.state), FOLDER) as folder:
        folder.chmod(0o711)
        console = folder / "console.log"
        machine: libvirt.virDomain | None = None
        try:
            spec = _spec(connection, image, folder, console, kvm=kvm)
            machine = connection.createXML(domain.to_xml(spec), libvirt.VIR_DOMAIN_START_AUTODESTROY)
            return _watch(connection, machine, console)
        except libvirt.libvirtError as error:
            _check_daemon(connection, error)
            return Booted(failure=f"QEMU fails: {_first_line(error)}", refused=True)
        finally:
            _remove(machine, uri, folder)


def _spec(
    connection: libvirt.virConnect, image: BaseImage, folder: Path, console: Path, *, kvm: bool
) -> DomainSpec:
    how = firmware.boot_of(connection, image)
    disk = None
    if isinstance(how, KernelBoot):
        how = replace(how, arguments="console=ttyS0 panic=-1 break=top")
    else:
        disk = folder / "overlay.qcow2"
        overlay.create(disk, image.disk)
    name = f"lab-kvm-probe-{os.getpid()}"
    return DomainSpec(
        name=name, lane=name, kvm=kvm, memory_mib=MIB, cpus=1, boot=how, console=console, disk=disk
    )


def _check_daemon(connection: libvirt.virConnect, error: libvirt.libvirtError) -> None:
    """Raise NoLibvirt if the daemon went away: that says nothing of KVM, and no verdict is kept."""
    if not connection.isAlive():
        raise NoLibvirt(f"libvirt went away while KVM was tried: {error}") from error


def _watch(connection: libvirt.virConnect, machine: libvirt.virDomain, console: Path) -> Booted:
    def ended() -> Booted | None:
        text = console.read_text(errors="replace") if console.exists() else ""
        if KERNEL_RAN in text:
            return Booted(seconds_of(text))
        try:
            state, _ = machine.state()
        except libvirt.libvirtError as error:
            _check_daemon(connection, error)
            state = libvirt.VIR_DOMAIN_SHUTOFF
        return None if state == libvirt.VIR_DOMAIN_RUNNING else Booted(failure="a guest kernel dies")

    try:
        return wait_for(ended, Deadline(LIMIT_SECONDS, "a guest kernel"))
    except DeadlineExpired:
        return Booted(LIMIT_SECONDS, f"a guest kernel did not start within {LIMIT_SECONDS:.0f} s")


def _remove(machine: libvirt.virDomain | None, uri: str, folder: Path) -> None:
    if machine is not None:
        try:
            machine.destroy()
        except libvirt.libvirtError:
            # It died already, which is then the answer, or its daemon died.
            leftovers.end_machine(machine.name(), uri)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
