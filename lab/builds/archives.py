"""Archives that others made: wheels, npm's tarballs, cargo-nextest's archives. Nothing in them is trusted."""

import errno
import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import zstandard

from lab.base import scratch
from lab.base.files import bounded, plain

# What an archive may hold, unpacked. boxlite 0.10.8's wheel has 115 MB in 31 files.
MOST_BYTES = 4 << 30
MOST_FILES = 100_000
# Folders in folders. Removing a deep tree takes a descriptor for each of them.
DEEPEST = 64
# tarfile takes a header of any length into memory.
LARGEST_HEADER = 1 << 20
LONGEST_MESSAGE = 300
# What reading a damaged archive raises: RuntimeError for encrypted files, and for 1,000 headers of one member;
# OverflowError for a time that no file can have.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    zstandard.ZstdError,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
# Of OSErrors, those that a position or a name in an archive causes. Without a number: gzip's own.
OF_THE_ARCHIVE = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


class Damaged(ValueError):
    """An archive cannot be read, is not what it says of itself, or holds more than the lab unpacks."""


@contextmanager
def reading() -> Iterator[None]:
    """Raise what shows in the block that an archive is damaged as Damaged."""
    try:
        yield
    except Damaged:
        raise
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in OF_THE_ARCHIVE:
            raise
        raise Damaged(bounded(plain(str(error)), LONGEST_MESSAGE)) from error


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file. In the block, too, what shows that it is damaged raises Damaged."""
    with reading(), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # zipfile reads no more of a file than the directory says that it has.
        _check_limits(len(entries), sum(entry.file_size for entry in entries))
        yield archive


def check_zip(path: Path) -> None:
    """Read all files of a zip file. Raises Damaged if one is not what its checksum says."""
    with open_zip(path) as archive:
        if name := archive.testzip():
            raise Damaged(f"{bounded(plain(name), LONGEST_MESSAGE)} is not what its checksum says")


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar that is compressed by zstd (`.zst`) or gzip. In the block, too, damage raises Damaged."""
    with scratch.temporary() as folder, reading():
        whole = folder / "tar"
        with path.open("rb") as raw, whole.open("wb") as out:
            stream = (
                zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw, read_across_frames=True)
                if path.suffix == ".zst"
                else gzip.GzipFile(fileobj=raw)
            )
            while block := stream.read(1 << 20):
                _check_limits(0, out.tell() + len(block))
                out.write(block)
        with _Cautious(io.FileIO(whole)) as cautious, tarfile.open(fileobj=cautious, mode="r:") as tar:
            yield tar


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files and the folders of a tar. Raises Damaged if it has anything else, or too many."""
    size = 0
    for number, member in enumerate(tar, 1):
        size += member.size  # Of a sparse file, as cargo-nextest packs programs, with its holes.
        _check_limits(number, size)
        path = PurePosixPath(member.name)
        is_below = not path.is_absolute() and ".." not in path.parts and len(path.parts) <= DEEPEST
        if not (is_below and (member.isreg() or member.isdir())):
            raise Damaged(f"it holds {bounded(plain(member.name), 100)!r}: expected files and folders below it")
        yield member


def unpack(path: Path, to: Path) -> None:
    """Unpack a compressed tar into an empty folder. Raises Damaged."""
    with open_tar(path) as tar:
        tar.extractall(to, members(tar), filter="data")


def _check_limits(files: int, size: int) -> None:
    if files > MOST_FILES:
        raise Damaged(f"it holds more than {MOST_FILES} files")
    if size > MOST_BYTES:
        raise Damaged(f"it holds more than {MOST_BYTES >> 30} GiB")


class _Cautious(io.BufferedReader):
    """A file that is read in pieces no larger than a header may be, and in no endless map of a sparse file."""

    blocks = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.blocks += size == tarfile.BLOCKSIZE
        _check_limits(self.blocks // 4, 0)
        if size is not None and size > LARGEST_HEADER:
            raise Damaged(f"it has a header of {size} bytes")
        return super().read(size)
