"""Machines that are there for a moment, to find something out about this host.

One that stands still takes about a second: before the first instruction libvirt has opened the machine's files,
virtlogd its console, and QEMU its port, so whatever is refused was refused by then.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import libvirt

from lab.base.architecture import get_host_architecture
from lab.base.paths import Paths
from lab.images import disk
from lab.images.store import BaseImage
from lab.machine import leftovers, seed
from lab.machine.domain import Device, FirmwareBoot, Hardware, KernelBoot, MachinePlace, start_machine

# Where a guest's name is in the names of lanes.
NAME = "throwaway"
# Of one that stands still, and for the initial RAM disk of any distribution.
PAUSED_MIB, BOOT_MIB = 32, 1024


@contextmanager
def open_machine(
    connection: libvirt.virConnect,
    paths: Paths,
    *,
    boot: KernelBoot | FirmwareBoot | None = None,
    kvm: bool = False,
    image: BaseImage | None = None,
    environment: Mapping[str, str] | None = None,
    script: str = "",
) -> Iterator[tuple[libvirt.virDomain, Path]]:
    """A machine and the file of its console, until the block ends. Without `boot` the machine stands still.

    It has all that a lane's machine has on the host: the folder with its mark, the console, the closed network
    and, with an `image`, an overlay. While that boots, it runs the shell `script`, if one is given. Raises
    libvirtError if the machine is refused, and LabError if it cannot be prepared or removed.
    """
    uri = connection.getURI()
    with leftovers.make_lane_folder(paths, guest=NAME, uri=uri) as (folder, port):
        place = MachinePlace(folder, port)
        hardware = Hardware(
            kvm=kvm,
            memory_mib=BOOT_MIB if boot else PAUSED_MIB,
            cpus=1,
            boot=boot or FirmwareBoot(),
            architecture=image.architecture if image else get_host_architecture(),
            devices=frozenset(
                device for device, use in ((Device.OVERLAY, image), (Device.SEED, script)) if use
            ),
            environment=environment or {},
            # A distribution's disk may restart at its first boot.
            may_restart=isinstance(boot, FirmwareBoot),
        )
        if image:
            disk.create_overlay(folder / Device.OVERLAY, image.disk)
        if script:
            seed.write(folder / Device.SEED, seed.render_script(script))
        started = start_machine(connection, hardware, place, paused=boot is None)
        try:
            yield started, folder / place.console
        finally:
            try:
                started.destroy()
            except libvirt.libvirtError:  # It died already, or its daemon did.
                leftovers.end_machine(folder.name, uri)
