"""The archive that carries a build into a guest."""

import tarfile
from collections.abc import Mapping
from pathlib import Path


def pack(files: Mapping[str, Path], to: Path) -> None:
    """Pack files and folders into a plain tar under the given names; what is large is compressed already."""
    with tarfile.open(to, "w") as tar:
        for name, path in files.items():
            tar.add(path, arcname=name, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Drop Python's caches, and what the entry says about the user who packed it."""
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
