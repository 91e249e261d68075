"""Deploying a build into a guest over SSH, with its suite and the box's root file system: once per lane.

It goes as one compressed tar, which the guest unpacks as it arrives.
"""

import gzip
import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import zstandard

from lab.base import scratch
from lab.base.activity import Activity, Progress, ShowProgress
from lab.base.files import A_BUILD, explain_full_disk, measure_size
from lab.builds import FOLDER, ROOTFS, Build
from lab.builds.rootfs import read_index
from lab.guest.programs import RemoteFailed
from lab.guest.session import ADMIN, SUITE, Session

ZSTD, GZIP = "zstd", "gzip"
# Prints nothing if the guest has no zstd.
PREPARE = f"sudo -n install -d -o {ADMIN} {FOLDER} && {{ command -v {ZSTD} || true; }}"
# tar's own blocks have 10 KiB. It ends with an error if the other program does; of a full disk it only says
# that it wrote too little.
UNPACK = (
    f"umask 022; {{}} -dc | tar --blocking-factor=2048 -C {FOLDER} -xf - || {{{{ df -h {FOLDER}; exit 1; }}}}"
)
# How long that may take under hardware acceleration: so long, and so much longer for each MiB.
UNPACK_SECONDS, MIB_SECONDS = 30.0, 0.1
# To be changed with what `deploy_build` makes of the same files.
LAYOUT = "5"


def compute_deploy_digest(build: Build, rootfs: Path) -> str:
    """A digest of all that `deploy_build` puts into a guest, except for what the build's kind leaves open."""
    parts = [build.digest, LAYOUT, read_index(rootfs)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def deploy_build(
    session: Session,
    build: Build,
    files: Mapping[str, Path],
    *,
    rootfs: Path,
    python: str,
    show: ShowProgress,
) -> None:
    """Put the build's files, its suite and the layout into the guest, and run the build's steps.

    `python` is the version of the guest's. `show` gets how far that is. Raises LabError.
    """
    show(Progress("deploying: packing", Activity.DEPLOY, name="deploying"))
    with scratch.make_temporary_folder() as folder:
        with explain_full_disk(folder, A_BUILD):
            contents = {
                **build.laid_out(files, folder, python),
                **{f"{build.suite_folder}/{name}": file for name, file in build.suite.files.items()},
                ROOTFS: rootfs,
            }
        show(Progress("deploying: sending", Activity.DEPLOY, name="deploying"))
        send_files(session, {name.removeprefix(f"{FOLDER}/"): path for name, path in contents.items()})
    show(Progress("deploying: first use", Activity.DEPLOY, name="deploying"))
    for step in build.steps():
        user = SUITE if step.as_suite_user else ADMIN
        session.run(step.command, seconds=step.seconds, user=user, check=step.check)


def send_files(session: Session, files: Mapping[str, Path]) -> None:
    """Unpack this host's files and folders in the guest, under their names below FOLDER. Raises LabError."""
    compression = ZSTD if session.run(PREPARE, seconds=5).stdout else GZIP
    size = sum(map(measure_size, files.values()))

    def write_archive(stream: IO[bytes]) -> None:
        with _compress(stream, compression) as compressed:
            pack_files(files, compressed)

    try:
        session.run(
            UNPACK.format(compression),
            seconds=UNPACK_SECONDS + size / 2**20 * MIB_SECONDS,
            name="unpacking the build",
            write_input=write_archive,
        )
    except RemoteFailed as error:
        hint = (
            f"if the guest's disk is full, raise disk_gib in its definition: this takes {size / 2**20:.0f} MiB"
        )
        raise RemoteFailed(str(error), hint=hint) from error


def _compress(stream: IO[bytes], compression: str) -> gzip.GzipFile | zstandard.ZstdCompressionWriter:
    """A stream that compresses what is written into it. Higher levels cost this host more than they save."""
    if compression == ZSTD:
        return zstandard.ZstdCompressor(level=3).stream_writer(stream, closefd=False)
    return gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=3)


def pack_files(
    files: Mapping[str, Path], stream: IO[bytes] | gzip.GzipFile | zstandard.ZstdCompressionWriter
) -> None:
    """Write files and folders under the given names into a stream, as a tar."""
    with tarfile.open(fileobj=stream, mode="w|", bufsize=2**20) as tar:
        for name, path in files.items():
            tar.add(path, arcname=name, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop what the entry says about the user who packed it, and let every user of the guest read it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
