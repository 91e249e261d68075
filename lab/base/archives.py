"""Archives that others made: wheels, npm's tarballs, cargo-nextest's, packages of kernels, results of hosts.

Nothing in them is trusted.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import zstandard

from lab.base import process, scratch
from lab.base.errors import LabError
from lab.base.files import clean_text, cut_text, is_full

# What an archive may hold, unpacked. boxlite 0.10.8's wheel has 115 MB in 31 files.
MOST_BYTES = 4 << 30
MOST_FILES = 100_000
# Folders in folders. Removing a deep tree takes a descriptor for each of them.
DEEPEST = 64
# tarfile takes a header of any length into memory.
LARGEST_HEADER = 1 << 20
LONGEST_MESSAGE = 300
# Writes what a package of Debian's has for the system as a tar, up to so many bytes.
FILES_OF_DEB = 'dpkg-deb --fsys-tarfile "$1" | head -c "$2" >"$3"'
DEB_SECONDS = 300.0


class DamagedArchive(LabError):
    """An archive cannot be read, is not what it says of itself, or holds more than the lab unpacks."""


@contextmanager
def guard_reading() -> Iterator[None]:
    """Raise as DamagedArchive whatever the block raises, unless a disk is full.

    zipfile, tarfile, the decompressors and readers of JSON raise a dozen kinds of errors for damaged data.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DamagedArchive) or is_full(error):
            raise
        raise DamagedArchive(cut_text(clean_text(str(error)), LONGEST_MESSAGE)) from error


def read_member(path: Path, name: str, most: int) -> bytes:
    """Up to `most` bytes of the file with this name in a wheel or a compressed tar. Raises DamagedArchive."""
    with guard_reading():
        if path.suffix == ".whl":
            with _open_wheel(path) as wheel, wheel.open(name) as file:
                return file.read(most)
        with path.open("rb") as raw, _open_tar(raw, path.suffix) as tar:
            members = {member.name: member for member in _members(tar)}
            content = tar.extractfile(members[name]) if name in members else None
            if content is None:
                raise DamagedArchive(f"it has no file {name}")
            return content.read(most)


def unpack_archive(path: Path, to: Path) -> None:
    """Unpack a wheel or a compressed tar into a folder. Raises DamagedArchive."""
    with guard_reading():
        if path.suffix == ".whl":
            with _open_wheel(path) as wheel:
                wheel.extractall(to)  # noqa: S202 - it keeps names below the folder, and they are looked at above
        else:
            with path.open("rb") as raw, _open_tar(raw, path.suffix) as tar:
                tar.extractall(to, _members(tar), filter="data")


def unpack_deb(path: Path, to: Path, most: int) -> int:
    """Unpack the files and folders of a .deb of up to `most` bytes into a folder; returns the bytes.

    Symbolic links are left out, so that nothing outside of the folder is written or found. The tar is beside
    the folder meanwhile. Raises DamagedArchive, OSError.
    """
    tar = to.with_name(f"{to.name}.tar")
    command: list[str | Path] = ["bash", "-o", "pipefail", "-c", FILES_OF_DEB, "bash", path]
    try:
        with guard_reading():
            failure = ""
            try:
                process.run_command([*command, str(most + 1), tar], timeout=DEB_SECONDS)
            except process.CommandFailed as error:
                failure = clean_text(error.output or str(error)).strip()
            # dpkg-deb also fails if `head` has enough.
            if (size := tar.stat().st_size) > most:
                raise DamagedArchive(f"it holds more than {most / 2**30:.3g} GiB")
            if failure:
                raise DamagedArchive(cut_text(failure, LONGEST_MESSAGE))
            with _read_tar(tar) as archive:
                archive.extractall(to, _members(archive, skip_links=True), filter="data")
    finally:
        tar.unlink(missing_ok=True)
    return size


def unpack_result(archive: bytes, to: Path, *, most: int, may_hold: Callable[[str], bool]) -> None:
    """Unpack a tar that is compressed by zstd into a folder. Raises DamagedArchive.

    It may have at most `most` bytes, unpacked, and only files with names that it `may_hold`.
    """
    with guard_reading(), _open_tar(io.BytesIO(archive), ".zst", most) as tar:
        tar.extractall(to, _members(tar, most, may_hold), filter="data")


def check_wheel(path: Path) -> None:
    """Read all files of a wheel. Raises DamagedArchive if one does not match its checksum."""
    with guard_reading(), _open_wheel(path) as wheel:
        if name := wheel.testzip():
            raise DamagedArchive(f"{cut_text(clean_text(name), LONGEST_MESSAGE)} does not match its checksum")


@contextmanager
def _open_wheel(path: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(path) as archive:
        size = 0
        for number, entry in enumerate(archive.infolist(), 1):
            size += entry.file_size  # zipfile reads no more of a file than the directory says that it has.
            _check_limits(number, size)
            _check_name(entry.filename)
        yield archive


@contextmanager
def _open_tar(raw: BinaryIO, suffix: str, most: int | None = None) -> Iterator[tarfile.TarFile]:
    """A tar that is compressed by zstd (`.zst`) or gzip, of at most `most` bytes (default: MOST_BYTES)."""
    with scratch.make_temporary_folder() as folder:
        unpacked = folder / "tar"
        with unpacked.open("wb") as out:
            stream = (
                zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw, read_across_frames=True)
                if suffix == ".zst"
                else gzip.GzipFile(fileobj=raw)
            )
            while block := stream.read(1 << 20):
                _check_limits(0, out.tell() + len(block), most)
                out.write(block)
        with _read_tar(unpacked) as tar:
            yield tar


@contextmanager
def _read_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar that is not compressed."""
    with _Cautious(io.FileIO(path)) as cautious, tarfile.open(fileobj=cautious, mode="r:") as tar:
        yield tar


def _members(
    tar: tarfile.TarFile,
    most: int | None = None,
    may_hold: Callable[[str], bool] = lambda _name: True,
    *,
    skip_links: bool = False,
) -> Iterator[tarfile.TarInfo]:
    """The files and folders of a tar. Raises DamagedArchive if it has anything else, or too many.

    `skip_links`: symbolic links are left out and not refused.
    """
    size = 0
    for number, member in enumerate(tar, 1):
        size += member.size  # Of a sparse file, as cargo-nextest packs programs, with its holes.
        _check_limits(number, size, most)
        if skip_links and member.issym():
            continue
        _check_name(member.name, is_usual=(member.isreg() or member.isdir()) and may_hold(member.name))
        yield member


def _check_name(name: str, *, is_usual: bool = True) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) > DEEPEST or not is_usual:
        raise DamagedArchive(
            f"it holds {cut_text(clean_text(name), 100)!r}; expected only files and folders below it"
        )


def _check_limits(files: int, size: int, most: int | None = None) -> None:
    most = MOST_BYTES if most is None else most
    if files > MOST_FILES:
        raise DamagedArchive(f"it holds more than {MOST_FILES} files")
    if size > most:
        raise DamagedArchive(f"it holds more than {most >> 20} MiB")


class _Cautious(io.BufferedReader):
    """A file that is read in pieces no larger than a header may be, and in no endless map of a sparse file."""

    blocks = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.blocks += size == tarfile.BLOCKSIZE
        _check_limits(self.blocks // 4, 0)
        if size is not None and size > LARGEST_HEADER:
            raise DamagedArchive(f"it has a header of {size} bytes")
        return super().read(size)
