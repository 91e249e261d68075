"""Opening a lane, and taking it down again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import libvirt

from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images.store import BaseImage
from lab.machine import leftovers, ports
from lab.machine.acceleration import Acceleration
from lab.machine.connection import default_uri
from lab.machine.domain import Network
from lab.machine.lane import Lane


@contextmanager
def open_lane(
    connection: libvirt.virConnect,
    paths: Paths,
    *,
    guest: Guest,
    image: BaseImage,
    acceleration: Acceleration,
    uri: str | None = None,
    network: Network = Network.CLOSED,
    nameservers: Sequence[str] = (),
    arguments: str = "",
) -> Iterator[Lane]:
    """A lane whose disk and seed are ready, not started yet; nothing of it is left afterwards.

    Its mark is written first: if this lab is killed, the next command removes what it left.
    """
    port = ports.reserve(paths.make(paths.ports))
    try:
        with leftovers.lane_folder(paths, guest=guest.name, uri=uri or default_uri()) as folder:
            lane = Lane(
                connection,
                guest=guest,
                image=image,
                acceleration=acceleration,
                folder=folder,
                port=port,
                network=network,
                nameservers=nameservers,
                arguments=arguments,
            )
            try:
                lane.set_up_disk()
                yield lane
            finally:
                try:
                    lane.stop()
                except libvirt.libvirtError:
                    # Its daemon is gone or knows nothing of it any more.
                    leftovers.end_machine(folder.name, uri or default_uri())
    finally:
        port.release()
