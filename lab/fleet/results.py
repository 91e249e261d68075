"""What a part leaves on its host, as one archive: its record and the evidence of its cells (tar, zstd)."""

import io
import json
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard

from lab.base import scratch
from lab.base.data import SMALL_FILE, parse_json
from lab.base.errors import LabError, UsageError
from lab.base.files import bounded, plain
from lab.builds import archives
from lab.lane.cell import FAULT, fault_folder
from lab.record import RESULTS_FILE, RunResult

# What a part may hold, uncompressed. Measured: up to 0.3 MiB for a cell with all that was tried on it.
MOST_BYTES = 256 * 2**20
MOST_FILES = 100_000
LEVEL = 3
# How the part ended, beside its record.
END_FILE = "end.json"
# The most bytes of both. Measured: up to 53 KiB of record for a cell, and a part is 15 minutes of them.
MOST_OWN = {RESULTS_FILE: 16 << 20, END_FILE: SMALL_FILE}
# What a damaged archive leads to. The last three: it has a file and a folder of one name.
WRONG = (
    *(tarfile.TarError, zstandard.ZstdError, EOFError, ValueError, UsageError, archives.Damaged),
    *(FileExistsError, IsADirectoryError, NotADirectoryError),
)


class DamagedResult(LabError):
    """A part's result is too large or is no result. The part is run again."""


def pack(folder: Path, end: Mapping[str, Any]) -> bytes:
    """Return the record of a part's run in `folder`, and the evidence of its cells; `end` goes with them.

    Only regular files go into it. Raises UsageError if there is no record, OSError if the disk is full.
    """
    result = RunResult.read(folder)
    result.write(folder)  # With what was decided since it was written whole.
    (folder / END_FILE).write_text(json.dumps(end))
    archive = io.BytesIO()
    with (
        zstandard.ZstdCompressor(level=LEVEL).stream_writer(archive, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in (END_FILE, RESULTS_FILE):
            tar.add(folder / name, name)
        for cell in result.cells:
            for file in sorted((folder / cell.folder).rglob("*")):
                if file.is_file() and not file.is_symlink():
                    tar.add(file, str(file.relative_to(folder)), recursive=False)
    return archive.getvalue()


def unpack(archive: bytes, target: Path, cells: Collection[Path]) -> tuple[RunResult, dict[str, Any]]:
    """Unpack an archive into an empty folder; return the record in it, and how the part ended.

    It may hold nothing but these and files below the folders of `cells`. Raises DamagedResult, or OSError if
    this host's disk takes no more.
    """
    left = MOST_BYTES
    try:
        with scratch.temporary() as folder:
            file = folder / "part.tar.zst"
            file.write_bytes(archive)
            with archives.open_tar(file, MOST_BYTES) as tar:
                for number, member in enumerate(tar):
                    left -= member.size
                    if left < 0 or number >= MOST_FILES:
                        raise DamagedResult(f"it holds more than {MOST_BYTES >> 20} MiB or {MOST_FILES} files")
                    name = PurePosixPath(member.name)
                    most = MOST_OWN.get(member.name)
                    is_evidence = any(PurePosixPath(cell) in name.parents for cell in cells)
                    if not (member.isreg() and (most or is_evidence)):
                        raise DamagedResult(
                            f"it holds {bounded(plain(member.name), 100)!r}, no file of its cells"
                        )
                    if most and member.size > most:
                        raise DamagedResult(f"its {name} has more than {most >> 20} MiB")
                    tar.extract(member, target, filter="data")
        result = RunResult.read(target)
        if any(cell.folder not in cells for cell in result.cells):
            raise DamagedResult("its record has a cell that is not one of the part")
        end: dict[str, Any] = parse_json((target / END_FILE).read_bytes())
        return result, end
    except WRONG as error:
        raise DamagedResult(f"it is damaged: {error}") from error


def keep_evidence(source: Path, target: Path) -> None:
    """Move the evidence of a cell into the run's folder, beside that of earlier faults of the lab."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()) if source.is_dir() else ():
        if entry.name.startswith(FAULT):
            entry.rename(fault_folder(target))
        elif entry.is_dir() and (target / entry.name).is_dir():
            keep_evidence(entry, target / entry.name)
        else:
            entry.replace(target / entry.name)
