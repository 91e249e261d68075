"""Machines that are there for a moment, to find something out about this host.

One that stands still takes about a second: before the first instruction libvirt has opened the machine's files,
virtlogd its console, and QEMU its port, so whatever is refused was refused by then.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt

from lab.base import scratch
from lab.base.paths import Paths
from lab.images import disk
from lab.images.store import BaseImage
from lab.machine import domain, leftovers
from lab.machine.domain import DomainSpec, FirmwareBoot, KernelBoot

# The prefix of a machine's folder.
FOLDER = "throwaway-"
# For one that stands still, and for the initial RAM disk of any distribution.
PAUSED_MIB, BOOT_MIB = 32, 1024


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
