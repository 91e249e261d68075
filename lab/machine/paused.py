"""A machine whose processor stands still: what libvirt, QEMU and the host's security modules make of it.

Before the first instruction libvirt has opened the machine's files, virtlogd its console, and QEMU its port, so
whatever is refused was refused by then. It takes about a second.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import libvirt

from lab.base import scratch
from lab.base.paths import Paths
from lab.images.store import BaseImage
from lab.machine import domain, leftovers, overlay
from lab.machine.domain import DomainSpec, FirmwareBoot

FOLDER = "paused-"
MIB = 32


@contextmanager
def machine(
    connection: libvirt.virConnect,
    paths: Paths,
    *,
    kvm: bool = False,
    image: BaseImage | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The name of such a machine, which is there until the block ends. Nothing of it is left.

    It has a console in the lab's own folder, an overlay over `image`, and a lane's closed network on `port`.
    Raises libvirtError if it is refused, and LabError if it cannot be prepared or removed.
    """
    with scratch.make_in(paths.make(paths.state), FOLDER) as folder:
        folder.chmod(0o711)
        name = f"lab-{folder.name}"
        disk = folder / "overlay.qcow2" if image else None
        spec = DomainSpec(
            name=name,
            lane=name,
            kvm=kvm,
            memory_mib=MIB,
            cpus=1,
            boot=FirmwareBoot(),
            console=folder / "console.log",
            disk=disk,
            port=port,
            environment=environment or {},
        )
        flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
        try:
            if image and disk:
                overlay.create(disk, image.disk)
            started = connection.createXML(domain.to_xml(spec), flags)
            try:
                yield name
            finally:
                try:
                    started.destroy()
                except libvirt.libvirtError:  # Its daemon is gone, or knows nothing of it any more.
                    leftovers.end_machine(name, connection.getURI())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
