"""The record of a run while it grows: every decided cell is on disk before the next thing happens."""

import os
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import libvirt
import psutil
from filelock import FileLock, Timeout

from lab.base.errors import LabError, UsageError, unknown_name
from lab.builds import Build
from lab.machine.acceleration import Acceleration
from lab.machine.connection import version
from lab.plan import Cell
from lab.record import RESULTS_FILE, CellResult, Host, LaneRecord, RunInfo, RunResult, Status

LOCK = ".lock"


class ResultsNotWritten(LabError):
    """The run's folder takes no more results: nothing that is run from here on could be kept."""


class Journal:
    """`results.json` of one run, written whole and in one step at each change. Lanes share it."""

    def __init__(
        self, folder: Path, cells: Sequence[Cell], info: RunInfo, kept: Mapping[Path, CellResult]
    ) -> None:
        """`kept` holds the results, by the folders of their cells, of the run that is resumed."""
        self.folder = folder
        self.info = info
        self._cells = cells
        self._results = dict(kept)
        self._lock = threading.RLock()

    def decide(self, cell: Cell, result: CellResult) -> CellResult:
        """Keep a cell's result; the whole of it, with its evidence. Raises ResultsNotWritten."""
        with self._lock:
            result = self._results[cell.folder] = self._whole(cell, result)
            self.write()
        return result

    def is_decided(self, cell: Cell) -> bool:
        return cell.folder in self._results

    def passing(self, build: Build) -> list[CellResult]:
        """What passed so far of a build."""
        with self._lock:
            decided = list(self._results.values())
        return [each for each in decided if each.build == build.name and each.status is Status.PASS]

    def add_lane(self, record: LaneRecord) -> None:
        with self._lock:
            self.info.lanes.append(record)

    def deployed(self, build: Build, files: Mapping[str, str]) -> None:
        """Keep what was deployed of a build: each file with its SHA-256."""
        with self._lock:
            for record in self.info.builds:
                if record.name == build.name:
                    record.files.update(files)

    def describe_host(self, opened: libvirt.virConnect, how: Acceleration) -> bool:
        """Keep what the guests run on; whether this is the first time that it is told."""
        with self._lock:
            if self.info.host is not None:
                return False
            self.info.host = Host(
                kernel=platform.release(),
                system=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
                cpus=os.cpu_count() or 1,
                memory_mib=psutil.virtual_memory().total // 2**20,
                libvirt=version(opened.getLibVersion()),
                qemu=version(opened.getVersion()),
                connect=opened.getURI(),
                acceleration=how.name,
                acceleration_reason=how.reason,
            )
            return True

    def finish(self, *, interrupted: bool) -> RunResult:
        with self._lock:
            self.info.finished = datetime.now(UTC)
            self.info.interrupted = interrupted
            self.write()
            return self.result()

    def result(self) -> RunResult:
        """The run as it stands: a cell that is not decided yet is `not-run`."""
        reason = "interrupted" if self.info.interrupted else "not reached yet"
        with self._lock:
            cells = [
                self._results.get(cell.folder) or self._whole(cell, cell.result(Status.NOT_RUN, reason=reason))
                for cell in self._cells
            ]
            return RunResult(run=self.info, cells=cells)

    def write(self) -> None:
        try:
            self.result().write(self.folder)
        except OSError as error:
            raise ResultsNotWritten(
                f"the results cannot be written into {self.folder}: {error.strerror}",
                hint="free some disk space; the cells that ran before are in results.json",
            ) from error

    def _whole(self, cell: Cell, result: CellResult) -> CellResult:
        """The result with what can be said of every cell, whatever came of it."""
        folder = self.folder / cell.folder
        files = sorted(str(file.relative_to(self.folder)) for file in folder.rglob("*") if file.is_file())
        return result.model_copy(
            update={"evidence": files, "rerun": cell.rerun(self.info.options)},
        )


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a run's folder. Raises UsageError where another lab is at work in it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder}: another lab is at work in it", hint="wait until that one ends") from None
    try:
        yield
    finally:
        # In this order: once released, another lab may hold a lock on the file of that name.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def new_folder(runs: Path, wanted: Path | None) -> Path:
    """The folder of a new run. An own one must not hold a run already."""
    if wanted is None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        base = runs / stamp
        folder, number = base, 1
        while folder.exists():
            number += 1
            folder = base.with_name(f"{stamp}-{number}")
        return folder
    if (wanted / RESULTS_FILE).exists():
        raise UsageError(f"-o {wanted}: there is a run in it already", hint="name a new folder, or --resume it")
    return wanted.resolve()


def find_folder(runs: Path, run: str) -> Path:
    """Find a run by its name among the lab's own `runs`, or by the path of its folder. Raises UsageError."""
    # Names have no slash; "." and ".." are paths.
    if Path(run).name == run and run not in ("", "..") and (runs / run).is_dir():
        return runs / run
    if run and Path(run).is_dir():
        return Path(run)
    known = [folder.name for folder in runs.glob("*")] if runs.is_dir() else []
    raise unknown_name("run", run, known) if known else UsageError(f"no run {run!r}: there are none yet")


def keep_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Keep texts as evidence, by their files' names; where they cannot be, the cell is told all the same."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
