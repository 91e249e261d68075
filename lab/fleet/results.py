"""What a part leaves on its host, as one archive: its record and the evidence of its cells (tar, zstd)."""

import io
import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import zstandard

from lab.base import archives
from lab.base.data import read_model
from lab.base.files import clean_text, cut_text
from lab.fleet.messages import LONGEST, PartEnd
from lab.lane.cell import FAULT, choose_fault_folder
from lab.record import RESULTS_FILE, RunResult
from lab.record.cell import CELLS

# What a part may hold, uncompressed. Measured: up to 0.3 MiB for a cell with all that was tried on it.
MOST_BYTES = 256 * 2**20
LEVEL = 3
# How the part ended, beside its record.
END_FILE = "end.json"


def pack_part(folder: Path, end: PartEnd) -> bytes:
    """Return the record of a part's run in `folder`, and the evidence of its cells; `end` goes with them.

    Only regular files go into it. Raises UsageError if there is no record, OSError if the disk is full.
    """
    result = RunResult.read(folder)
    result.write(folder)  # With what was decided since it was written whole.
    (folder / END_FILE).write_text(end.model_dump_json())
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


def unpack_part(
    archive: bytes, target: Path, cells: Collection[Path], builds: Collection[str]
) -> tuple[RunResult, PartEnd]:
    """Unpack an archive into an empty folder; return the record in it, and how the part ended.

    It may hold nothing but these and files below the folders of `cells`, which are cells of `builds`. Raises
    archives.DamagedArchive, or OSError if this host's disk takes no more.
    """
    folders = [PurePosixPath(cell) for cell in cells]

    def may_hold(name: str) -> bool:
        # As evidence that a guest sends, which this was.
        is_plain = clean_text(name) == name and "\n" not in name
        parents = PurePosixPath(name).parents
        return name in (RESULTS_FILE, END_FILE) or (is_plain and any(cell in parents for cell in folders))

    archives.unpack_result(archive, target, most=MOST_BYTES, may_hold=may_hold)
    with archives.guard_reading():
        result = RunResult.read(target)
        # By the name: one with a "." in it has the folder of another one.
        names = {str(cell) for cell in cells}
        if other := next((cell for cell in result.cells if f"{CELLS}/{cell.name}" not in names), None):
            raise archives.DamagedArchive(
                f"its record has {cut_text(clean_text(other.name), 100)!r}, which is not a cell of the part"
            )
        if lacking := next((build.name for build in result.run.builds if build.name not in builds), None):
            raise archives.DamagedArchive(
                f"its record has the build {cut_text(clean_text(lacking), 100)!r}, which is not a build of "
                "the part"
            )
        return result, read_model(PartEnd, target / END_FILE, 8 * LONGEST)


def keep_evidence(source: Path, target: Path) -> None:
    """Move the evidence of a cell into the run's folder, beside that of earlier faults of the lab."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()) if source.is_dir() else ():
        if entry.name.startswith(FAULT):
            entry.rename(choose_fault_folder(target))
        elif entry.is_dir() and (target / entry.name).is_dir():
            keep_evidence(entry, target / entry.name)
        else:
            entry.replace(target / entry.name)
