"""What a part's child left, as one archive: the record and the evidence of its cells (tar, compressed by zstd).

Who unpacks it trusts nothing in it: not its names, not its sizes, not its record.
"""

import io
import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import zstandard

from lab.base.errors import LabError, UsageError
from lab.base.files import bounded, plain
from lab.record import RESULTS_FILE, RunResult

# What a part may hold, uncompressed. Measured: up to 0.3 MiB for a cell with all that was tried on it.
MOST_BYTES = 256 * 2**20
MOST_FILES = 100_000
MOST_LEVELS = 32
LONGEST_NAME = 255
LARGEST_HEADER = 1 << 20
LEVEL = 3


class DamagedResult(LabError):
    """A part's result is cut off, or is no result. The part is run again."""


def pack(folder: Path, to: Path, cells: Collection[Path]) -> None:
    """Write an archive of the record of a part's run and of these cells' folders, relative to `folder`.

    Only regular files go into it. Raises UsageError if there is no record.
    """
    RunResult.read(folder).write(folder)  # With what was decided since it was written whole.
    with (
        to.open("wb") as raw,
        zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(raw) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.add(folder / RESULTS_FILE, RESULTS_FILE, filter=_anonymous)
        for cell in sorted(cells):
            for file in sorted((folder / cell).rglob("*")):
                if file.is_file() and not file.is_symlink():
                    tar.add(file, str(file.relative_to(folder)), recursive=False, filter=_anonymous)


def unpack(archive: Path, target: Path, cells: Collection[Path]) -> RunResult:
    """Unpack an archive into an empty folder, and read the record in it.

    It may hold nothing but the record and files below the folders of `cells`. Raises DamagedResult, or OSError
    if this host's disk takes no more.
    """
    plain_tar = target / ".tar"
    try:
        _decompress(archive, plain_tar)
        with _Cautious(io.FileIO(plain_tar)) as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for number, member in enumerate(tar):
                if number >= MOST_FILES:
                    raise DamagedResult(f"it holds more than {MOST_FILES} files")
                tar.extract(_checked(member, cells), target, filter="data")
        return RunResult.read(target)
    except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError, RecursionError) as error:
        raise DamagedResult(f"it is cut off or damaged: {error}") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise DamagedResult("it has a file and a folder of one name") from error
    except UsageError as error:
        raise DamagedResult(f"its record cannot be read: {error.args[0]}") from error
    finally:
        plain_tar.unlink(missing_ok=True)


def _decompress(archive: Path, to: Path) -> None:
    """Decompress into a file of bounded size. Raises DamagedResult."""
    left = MOST_BYTES
    with (
        archive.open("rb") as raw,
        to.open("wb") as out,
        zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw) as stream,
    ):
        while block := stream.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise DamagedResult(f"it is larger than {MOST_BYTES >> 20} MiB")
            out.write(block)


class _Cautious(io.BufferedReader):
    """A file that is never read in large pieces: tarfile would take a header of any length into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_HEADER:
            raise DamagedResult(f"it has a header of {size} bytes")
        return super().read(size)


def _checked(member: tarfile.TarInfo, cells: Collection[Path]) -> tarfile.TarInfo:
    """The member, if a part's archive may hold it. Raises DamagedResult."""
    name = member.name
    path = PurePosixPath(name)
    known = name == RESULTS_FILE or any(PurePosixPath(cell) in path.parents for cell in cells)
    sound = (
        member.isreg()
        and not member.issparse()
        and str(path) == name
        and plain(name) == name
        and "\n" not in name
        and ".." not in path.parts
        and len(path.parts) <= MOST_LEVELS
        and all(len(part.encode()) <= LONGEST_NAME for part in path.parts)
    )
    if not (known and sound):
        raise DamagedResult(f"it holds {bounded(plain(name), 100)!r}, which is no file of a cell of the part")
    return member.replace(mtime=None, deep=False)  # type: ignore[arg-type]  # No file needs its time.


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
