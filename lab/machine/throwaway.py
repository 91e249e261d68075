"""Machines that are there for a moment, to find something out about this host.

One stands still: before the first instruction libvirt has opened the machine's files, virtlogd its console, and
QEMU its port, so whatever is refused was refused by then. It takes about a second. Another one boots a guest's
kernel until it starts user space: whether it gets there, and how long that takes.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt

from lab.base import scratch
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, wait_for
from lab.images import disk
from lab.images.store import BaseImage
from lab.machine import domain, leftovers
from lab.machine.connection import NoLibvirt
from lab.machine.domain import DomainSpec, FirmwareBoot, KernelBoot

# The prefix of a machine's folder.
FOLDER = "throwaway-"
# For one that stands still, and for the initial RAM disk of any distribution.
PAUSED_MIB, BOOT_MIB = 32, 1024
# The kernel prints this when it starts the init of the initial RAM disk: all of its own start-up has run.
KERNEL_RAN = "Run /init as init process"
# With the kernel's own clock before it, which does not count how long QEMU and a boot loader took.
RAN_AT = re.compile(rf"\[ *(\d{{1,6}}\.\d{{1,9}})\] {KERNEL_RAN}")
# Under emulation it took 8 to 17 s in all, at a load of 7 to 9 on two processors. KVM on an emulated host is as
# slow, and such a host is the slower the more it has to do.
LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Throwaway:
    """A machine that was started, and the file of its console."""

    name: str
    console: Path
    domain: libvirt.virDomain


@contextmanager
def machine(
    connection: libvirt.virConnect,
    paths: Paths,
    *,
    boot: KernelBoot | FirmwareBoot | None = None,
    kvm: bool = False,
    image: BaseImage | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Throwaway]:
    """A machine that is there until the block ends; nothing of it is left. Without `boot` it stands still.

    It has a console in the lab's own folder, an overlay over the disk of `image`, and a lane's closed network
    on `port`. Raises libvirtError if it is refused, and LabError if it cannot be prepared or removed.
    """
    with scratch.make_in(paths.make(paths.state), FOLDER) as folder:
        folder.chmod(0o711)
        name = f"lab-{folder.name}"
        overlay = folder / "overlay.qcow2" if image else None
        spec = DomainSpec(
            name=name,
            lane=name,
            kvm=kvm,
            memory_mib=BOOT_MIB if boot else PAUSED_MIB,
            cpus=1,
            boot=boot or FirmwareBoot(),
            console=folder / "console.log",
            disk=overlay,
            port=port,
            environment=environment or {},
        )
        flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | (0 if boot else libvirt.VIR_DOMAIN_START_PAUSED)
        try:
            if image and overlay:
                disk.create_overlay(overlay, image.disk)
            started = connection.createXML(domain.to_xml(spec), flags)
            try:
                yield Throwaway(name, spec.console, started)
            finally:
                try:
                    started.destroy()
                except libvirt.libvirtError:  # It died already, or its daemon did.
                    leftovers.end_machine(name, connection.getURI())
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Booted:
    """How the boot of a kernel ended: `failure` says why no user space was started, and is empty if it was.

    `seconds` is how long that took on the kernel's own clock; None if its console does not say. A boot that met
    the limit took at least that long. `refused`: libvirt did not start the machine, so no kernel ran.
    """

    seconds: float | None = None
    failure: str = ""
    refused: bool = False


def boot_kernel(connection: libvirt.virConnect, paths: Paths, image: BaseImage, *, kvm: bool) -> Booted:
    """Boot the image's kernel until it starts user space; nothing of it is left.

    Raises NoLibvirt, LeftBehind.
    """
    how = domain.boot_of(connection, image)
    own_disk = None if isinstance(how, KernelBoot) else image
    if isinstance(how, KernelBoot):
        how = replace(how, arguments="console=ttyS0 panic=-1 break=top")
    try:
        with machine(connection, paths, boot=how, kvm=kvm, image=own_disk) as started:
            return _watch(connection, started)
    except libvirt.libvirtError as error:
        _check_daemon(connection, error)
        return Booted(failure=f"QEMU fails: {str(error).splitlines()[0]}", refused=True)


def _watch(connection: libvirt.virConnect, started: Throwaway) -> Booted:
    def ended() -> Booted | None:
        text = started.console.read_text(errors="replace") if started.console.exists() else ""
        if KERNEL_RAN in text:
            return Booted(seconds_of(text))
        try:
            state, _ = started.domain.state()
        except libvirt.libvirtError as error:
            _check_daemon(connection, error)
            state = libvirt.VIR_DOMAIN_SHUTOFF
        return None if state == libvirt.VIR_DOMAIN_RUNNING else Booted(failure="a guest kernel dies")

    try:
        return wait_for(ended, Deadline(LIMIT_SECONDS, "a guest kernel"))
    except DeadlineExpired:
        return Booted(LIMIT_SECONDS, f"a guest kernel did not start within {LIMIT_SECONDS:.0f} s")


def _check_daemon(connection: libvirt.virConnect, error: libvirt.libvirtError) -> None:
    """Raise NoLibvirt if the daemon went away: that says nothing of KVM, and no verdict is kept."""
    if not connection.isAlive():
        raise NoLibvirt(f"libvirt went away while KVM was tried: {error}") from error


def seconds_of(console: str) -> float | None:
    """How long the newest boot on this console took until the kernel started user space, on its own clock.

    None if the console does not show it, as with a kernel that was told to be quiet.
    """
    times = RAN_AT.findall(console)
    return float(times[-1]) if times else None
