"""Deploying a build into a guest, with its suite and the box's root file system: once per lane.

It comes in on a disk of the guest's machine: an emulated guest takes several times as long to decrypt and to
decompress it as to read it.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.base import scratch
from lab.base.space import A_PAYLOAD, explained
from lab.builds import FOLDER, ROOTFS, Build, payload
from lab.guest.session import ADMIN, SUITE, Session
from lab.machine.domain import PAYLOAD_SERIAL

DISK = f"/dev/disk/by-id/virtio-{PAYLOAD_SERIAL}"
# How long unpacking may take under hardware acceleration: so long, and so much longer for each MiB.
UNPACK_SECONDS, MIB_SECONDS = 30.0, 0.1
# To be changed with what `deploy` makes of the same files.
LAYOUT = "2"


def identity(build: Build, rootfs: Path) -> str:
    """A digest of all that `deploy` puts into a guest, except for what the build's kind leaves open."""
    # A layout's index names everything else in it by digest.
    parts = [build.digest, LAYOUT, (rootfs / "index.json").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def deploy(
    session: Session,
    build: Build,
    files: Mapping[str, Path],
    *,
    rootfs: Path,
    disk: Path,
    python: str,
    say: Callable[[str], None],
) -> None:
    """Put the build's files, its suite and the layout into the guest, and run the build's steps.

    `disk` is the file of the machine's payload disk, `python` the version of the guest's. `say` is told how far
    that is. Raises LabError.
    """
    say("deploying: packing")
    with scratch.temporary() as folder:
        with explained(folder, A_PAYLOAD):
            laid_out = build.laid_out(files, folder, python)
        contents = {
            **laid_out,
            **{f"{build.suite_folder}/{name}": file for name, file in build.suite.files.items()},
            ROOTFS: rootfs,
        }
        with explained(disk, A_PAYLOAD):
            size = payload.pack(
                {name.removeprefix(f"{FOLDER}/"): path for name, path in contents.items()}, disk
            )
    say("deploying: unpacking")
    session.program(
        "unpack",
        {"disk": DISK, "size": size, "folder": FOLDER, "owner": ADMIN},
        seconds=UNPACK_SECONDS + size / 2**20 * MIB_SECONDS,
    )
    for step in build.steps():
        user = SUITE if step.as_suite_user else ADMIN
        session.run(step.command, seconds=step.seconds, user=user, check=step.check)
