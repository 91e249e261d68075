"""Unpacking what a guest packed. The guest is hostile: its archive may be anything.

Only files are taken, none outside of the folder, no links, and no more than the bounds below.
"""

import gzip
import tarfile
import zlib
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import IO

from lab.base.errors import LabError
from lab.base.files import bounded, plain

MOST_BYTES = 256 * 2**20
MOST_FILES = 5_000
MOST_LEVELS = 20
LONGEST_NAME = 255
BLOCK = 2**18
# What Python's modules raise for archives that are damaged, or made to do harm.
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


class HostileArchive(LabError):
    """The guest's archive is damaged, or more than is taken from a guest."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a gzipped tar archive into a folder. Raises HostileArchive, OSError."""
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r|") as tar:
            for number, member in enumerate(tar):
                if number >= MOST_FILES:
                    raise HostileArchive(f"the guest's evidence has more than {MOST_FILES} files")
                # A sparse file's size may be anything.
                if member.isreg() and not member.issparse():
                    _write(tar.extractfile(member), _target(folder, member.name))
    except DAMAGE as error:
        raise HostileArchive(
            f"the guest's evidence cannot be unpacked: {bounded(plain(str(error)), 200)}"
        ) from error


class _Bounded(RawIOBase):
    """A stream that ends with an error instead of after too much. tarfile keeps a header's text in memory."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = MOST_BYTES

    def read(self, size: int = BLOCK) -> bytes:
        block = self._stream.read(min(size, BLOCK))
        self._left -= len(block)
        if self._left < 0:
            raise HostileArchive(f"the guest's evidence is larger than {MOST_BYTES // 2**20} MiB")
        return block


def _target(folder: Path, name: str) -> Path:
    """Where a file of the archive goes. Raises HostileArchive for a name that no file of evidence has."""
    parts = PurePosixPath(name).parts
    wrong = (
        plain(name) != name
        or "\n" in name
        or not parts
        or len(parts) > MOST_LEVELS
        or any(part in ("/", "..") or len(part.encode()) > LONGEST_NAME for part in parts)
    )
    if wrong:
        raise HostileArchive(f"the guest's evidence has a file with the name {bounded(plain(name), 100)!r}")
    return folder.joinpath(*parts)


def _write(source: IO[bytes] | None, target: Path) -> None:
    assert source is not None, "it is a file"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as sink:
            while block := source.read(BLOCK):
                sink.write(block)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise HostileArchive(
            f"the guest's evidence has a file and a folder of one name: {target.name}"
        ) from error
