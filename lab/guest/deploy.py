"""Deploying a build into a guest, with its suite and the box's root file system: once per lane.

It goes as a tar on a disk of the lane's own. Over SSH the guest would have to decrypt it, which took an
emulated guest twice as long; docs/measurements/boot-and-deployment.md has the figures.
"""

import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.base import scratch
from lab.base.activity import Activity, Progress, ShowProgress
from lab.base.files import A_PAYLOAD, explain_full_disk
from lab.builds import FOLDER, ROOTFS, Build
from lab.builds.rootfs import read_index
from lab.guest.session import ADMIN, SUITE, Session
from lab.machine.domain import PAYLOAD
from lab.machine.lane import make_empty_disk

DISK = f"/dev/disk/by-id/virtio-{PAYLOAD}"
# tar's own blocks have 10 KiB.
UNPACK = (
    f"umask 022 && sudo -n install -d -o {ADMIN} {FOLDER} && sudo -n chown {ADMIN} {DISK} && "
    f"tar --blocking-factor=2048 -C {FOLDER} -xf {DISK}"
)
# How long that may take under hardware acceleration: so long, and so much longer for each MiB.
UNPACK_SECONDS, MIB_SECONDS = 30.0, 0.1
# To be changed with what `deploy_build` makes of the same files.
LAYOUT = "4"


def compute_deploy_digest(build: Build, rootfs: Path) -> str:
    """A digest of all that `deploy_build` puts into a guest, except for what the build's kind leaves open."""
    parts = [build.digest, LAYOUT, read_index(rootfs)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def deploy_build(
    session: Session,
    disk: Path,
    build: Build,
    files: Mapping[str, Path],
    *,
    rootfs: Path,
    python: str,
    show: ShowProgress,
) -> None:
    """Put the build's files, its suite and the layout into the guest, and run the build's steps.

    `disk` is this host's file of the guest's disk for them. `python` is the version of the guest's. `show`
    gets how far that is. Raises LabError.
    """
    show(Progress("deploying: packing", Activity.DEPLOY, name="deploying"))
    with scratch.make_temporary_folder() as folder, explain_full_disk(folder, A_PAYLOAD):
        contents = {
            **build.laid_out(files, folder, python),
            **{f"{build.suite_folder}/{name}": file for name, file in build.suite.files.items()},
            ROOTFS: rootfs,
        }
        with explain_full_disk(disk, A_PAYLOAD):
            size = pack({name.removeprefix(f"{FOLDER}/"): path for name, path in contents.items()}, disk)
    show(Progress("deploying: unpacking", Activity.DEPLOY, name="deploying"))
    session.run(UNPACK, seconds=UNPACK_SECONDS + size / 2**20 * MIB_SECONDS)
    make_empty_disk(disk)
    show(Progress("deploying: first use", Activity.DEPLOY, name="deploying"))
    for step in build.steps():
        user = SUITE if step.as_suite_user else ADMIN
        session.run(step.command, seconds=step.seconds, user=user, check=step.check)


def pack(files: Mapping[str, Path], disk: Path) -> int:
    """Write files and folders under the given names into a tar at the start of a disk; its size in bytes."""
    with disk.open("r+b") as stream:
        with tarfile.open(fileobj=stream, mode="w|", bufsize=2**20) as tar:
            for name, path in files.items():
                tar.add(path, arcname=name, filter=_anonymous)
        return stream.tell()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop what the entry says about the user who packed it, and let every user of the guest read it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
