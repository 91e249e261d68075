"""The archive that carries a build into a guest."""

import tarfile
from collections.abc import Mapping
from pathlib import Path


def pack(files: Mapping[str, Path], to: Path) -> int:
    """Write files and folders under the given names to the beginning of a file, as a plain tar.

    Returns the tar's size in bytes. The file keeps its own size: a machine has it as a disk.
    """
    with to.open("r+b") as disk:
        with tarfile.open(fileobj=disk, mode="w") as tar:
            for name, path in files.items():
                tar.add(path, arcname=name, filter=_anonymous)
        return disk.tell()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop what the entry says about the user who packed it, and let every user of the guest read it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
