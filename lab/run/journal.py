"""The results of a run while it goes on: every decided cell is on disk before anything else happens."""

import shlex
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lab.base.errors import LabError, UsageError, unknown_name
from lab.base.space import A_RUN, free_text, is_full
from lab.builds import Build
from lab.plan import Cell
from lab.record import RESULTS_FILE, CellResult, Host, LaneRecord, ProcessorTime, RunInfo, RunResult, Status

LOCK = ".lock"
RUN_LOG = "run.log"
# The variants that were made for a run and are not in the catalog.
VARIANTS = "variants"


class ResultsNotWritten(LabError):
    """The run's folder takes no more results: to go on would lose them."""


class Journal:
    """`results.json` of one run, replaced as a whole at each change. All lanes share it."""

    def __init__(
        self, folder: Path, cells: Sequence[Cell], info: RunInfo, kept: Mapping[Path, CellResult]
    ) -> None:
        """`kept` maps the folders of cells to their results, if the run is resumed."""
        self.folder = folder
        self.info = info
        self._cells = list(cells)
        self._results = dict(kept)
        self._has_begun = False
        self._lock = threading.RLock()
        self._is_held = False

    def decide(self, cell: Cell, result: CellResult) -> CellResult:
        """Write down a cell's result and return it with its evidence. Raises ResultsNotWritten."""
        with self._lock:
            result = self._results[cell.folder] = self._complete(cell, result)
            self.write()
        return result

    def add(self, cell: Cell) -> None:
        """Take in a cell that joins the run while it goes on. Raises ResultsNotWritten."""
        with self._lock:
            self._cells.append(cell)
            if all(record.name != cell.build.name for record in self.info.builds):
                self.info.builds.append(cell.build.record())
            self.write()

    def is_decided(self, cell: Cell) -> bool:
        return cell.folder in self._results

    def passing(self, build: Build) -> list[CellResult]:
        """The cells of a build that passed so far."""
        with self._lock:
            decided = list(self._results.values())
        return [each for each in decided if each.build == build.name and each.status is Status.PASS]

    def add_lane(self, record: LaneRecord) -> None:
        with self._lock:
            self.info.lanes.append(record)

    def deployed(self, build: Build, files: Mapping[str, str]) -> None:
        """Write down which files of a build were deployed, each with its SHA-256."""
        with self._lock:
            for record in self.info.builds:
                if record.name == build.name:
                    record.files.update(files)

    def begin_on(self, host: Host) -> bool:
        """Write down what a lane runs on; whether it is the first lane of this session."""
        with self._lock:
            is_first, self._has_begun = not self._has_begun, True
            self.info.host = self.info.host or host
            return is_first

    def finish(self, *, interrupted: bool, spent: ProcessorTime | None = None) -> RunResult:
        """Write the end of a session down, with what it took of the host's processors if that was measured."""
        with self._lock:
            self.info.processor_time += [spent] if spent else []
            self.info.finished = datetime.now(UTC)
            self.info.interrupted = interrupted
            self.write()
            return self.result()

    def result(self) -> RunResult:
        """The run so far: a cell that is not decided yet is `not-run`."""
        reason = "interrupted" if self.info.interrupted else "not reached yet"
        with self._lock:
            cells = [
                self._results.get(cell.folder)
                or self._complete(cell, cell.result(Status.NOT_RUN, reason=reason))
                for cell in self._cells
            ]
            return RunResult(run=self.info, cells=cells)

    @contextmanager
    def one_write(self) -> Iterator[None]:
        """Write down the results of a block once, at its end. Raises ResultsNotWritten.

        Hundreds of cells may be decided at once, and each write takes longer than deciding one.
        """
        with self._lock:
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False
            self.write()

    def write(self) -> None:
        """Write `results.json`, unless that waits for the end of a block. Raises ResultsNotWritten."""
        if self._is_held:
            return
        try:
            self.result().write(self.folder)
        except OSError as error:
            why = f"{error.strerror}; {free_text(self.folder)}; {A_RUN}" if is_full(error) else error.strerror
            raise ResultsNotWritten(
                f"the results cannot be written into {self.folder}: {why}",
                hint="free some disk space; the cells that ran before are in results.json, and "
                f"lab matrix --resume {shlex.quote(str(self.folder))} runs the others",
            ) from error

    def _complete(self, cell: Cell, result: CellResult) -> CellResult:
        """Complete a result with what every cell has: its evidence, and the command that runs it again."""
        folder = self.folder / cell.folder
        files = sorted(str(file.relative_to(self.folder)) for file in folder.rglob("*") if file.is_file())
        return result.model_copy(
            update={"evidence": files, "rerun": cell.rerun(self.info.options)},
        )


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a run's folder for the length of a block. Raises UsageError if another lab uses it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder}: another lab is at work in it", hint="wait until that one ends") from None
    try:
        yield
    finally:
        # In this order: after the release, another lab may have locked a file of this name.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def new_folder(runs: Path, wanted: Path | None) -> Path:
    """Name the folder of a new run, and clear `wanted` of a run that failed before a lane came up.

    Raises UsageError if `wanted` holds any other run, or if another lab is at work in it.
    """
    if wanted is None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        base = runs / stamp
        folder, number = base, 1
        while folder.exists():
            number += 1
            folder = base.with_name(f"{stamp}-{number}")
        return folder
    if (wanted / RESULTS_FILE).exists():
        if not _has_no_result(wanted):
            raise UsageError(
                f"-o {wanted}: there is a run in it already", hint="name a new folder, or --resume it"
            )
        _clear(wanted)
    return wanted.resolve()


def _has_no_result(folder: Path) -> bool:
    """Whether the run in a folder ended before a lane came up, and left nothing that a new run could lose."""
    try:
        run = RunResult.read(folder)
    except UsageError:
        return False
    started = run.run.lanes or any(cell.evidence or cell.status is not Status.NOT_RUN for cell in run.cells)
    return not started


def _clear(folder: Path) -> None:
    """Delete what a failed start left and a new run would take for its own. Raises UsageError."""
    with locked_folder(folder):
        shutil.rmtree(folder / VARIANTS, ignore_errors=True)
        (folder / RUN_LOG).unlink(missing_ok=True)
        (folder / RESULTS_FILE).unlink()


def find_folder(runs: Path, run: str) -> Path:
    """Find a run by its name among the lab's own `runs`, or by the path of its folder. Raises UsageError."""
    # Names have no slash; "." and ".." are paths.
    try:
        if Path(run).name == run and run not in ("", "..") and (runs / run).is_dir():
            return runs / run
        if run and Path(run).is_dir():
            return Path(run)
    except OSError:
        pass  # No folder can have this name, for example because it is too long.
    known = [folder.name for folder in runs.glob("*")] if runs.is_dir() else []
    raise unknown_name("run", run, known) if known else UsageError(f"no run {run!r}: there are none yet")


def keep_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts as evidence, by file name. A full disk is no reason to lose the cell's result, too."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
