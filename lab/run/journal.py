"""The results of a run while it goes on: every decided cell is on disk before anything else happens."""

import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lab.base.errors import LabError
from lab.base.files import A_RUN, check_values, format_free_space, is_full
from lab.builds import Build
from lab.plan import Cell
from lab.record import (
    DECIDED_FILE,
    CellResult,
    DecidedCell,
    Host,
    LaneRecord,
    LaneStep,
    RunInfo,
    RunResult,
    Status,
    format_continuation,
)

# A record below this size, in bytes, is written whole at each decision: about ten cells.
SMALL_RECORD = 1 << 18

# Why a cell without a result is not-run: in a run that goes on or was killed, and in an interrupted one.
UNDECIDED = ("not reached yet", "interrupted")


class ResultsNotWritten(LabError):
    """The run's folder takes no more results: to go on would lose them."""


class Journal:
    """The record of one run on disk. All lanes share it.

    A small `results.json` is replaced as a whole at each decision. A larger one is replaced only when as much
    was added to `decided.jsonl` as it holds, so that what a run writes grows with its cells and not faster.
    """

    def __init__(
        self, folder: Path, cells: Sequence[Cell], info: RunInfo, earlier_results: Mapping[Path, CellResult]
    ) -> None:
        """`earlier_results` maps the folders of cells to their results, if the run is resumed."""
        self.folder = folder
        self.info = info
        self._cells = list(cells)
        self._results = dict(earlier_results)
        # The architectures whose guests this session has begun with.
        self._architectures: set[str] = set()
        self._lock = threading.RLock()
        # The size of `results.json`, or 0 if the next decision has to write it.
        self._size = 0
        # How `decided.jsonl` begins, and how many bytes were added to it.
        self._first_line, self._added = b"", 0
        # How many lanes and steps both files have.
        self._lanes = self._steps = 0

    def decide(self, cell: Cell, result: CellResult) -> CellResult:
        """Write down a cell's result and return it with its evidence.

        Raises ResultsNotWritten.
        """
        with self._lock:
            result = self._complete(cell, result)
            lanes, steps = self.info.lanes[self._lanes :], self.info.steps[self._steps :]
            line = DecidedCell(cell=result, lanes=lanes, steps=steps).model_dump_json().encode() + b"\n"
            check_values(line)  # What cannot be read again would cost the whole run.
            self._results[cell.folder] = result
            if self._size < SMALL_RECORD or self._added >= self._size:
                self.write()
            else:
                self._add(line)
        return result

    def add(self, cell: Cell) -> None:
        """Take in a cell that joins the run while it goes on. Raises ResultsNotWritten."""
        with self._lock:
            self._cells.append(cell)
            if all(record.name != cell.build.name for record in self.info.builds):
                self.info.builds.append(cell.build.record())
            self.write()

    def passing(self, build: Build) -> list[CellResult]:
        """The cells of a build that passed so far."""
        with self._lock:
            results = self._results.values()
            return [cell for cell in results if cell.build == build.name and cell.status is Status.PASS]

    def add_lane(self, record: LaneRecord) -> None:
        with self._lock:
            self.info.lanes.append(record)

    def add_step(self, step: LaneStep) -> None:
        with self._lock:
            self.info.steps.append(step)

    def deployed(self, build: Build, files: Mapping[str, str]) -> None:
        """Write down which files of a build were deployed, each with its SHA-256."""
        with self._lock:
            for record in self.info.builds:
                if record.name == build.name and not files.items() <= record.files.items():
                    record.files.update(files)
                    self._size = 0

    def begin_on(self, host: Host, arch: str) -> bool:
        """Write down what a lane runs on; whether it is the session's first one for guests of this `arch`."""
        with self._lock:
            is_first = arch not in self._architectures
            self._architectures.add(arch)
            if self.info.host is None and not self.info.merged:
                self.info.host = host
                self._size = 0
            return is_first

    def finish(self, *, interrupted: bool) -> RunResult:
        """Write the end of a session down."""
        with self._lock:
            self.info.finished = datetime.now(UTC)
            self.info.interrupted = interrupted
            run = self.write()
            (self.folder / DECIDED_FILE).unlink(missing_ok=True)
            return run

    def result(self) -> RunResult:
        """The run so far: a cell that is not decided yet is `not-run`."""
        reason = UNDECIDED[self.info.interrupted]
        with self._lock:
            cells = [
                self._results.get(cell.folder)
                or self._complete(cell, cell.result(Status.NOT_RUN, reason=reason))
                for cell in self._cells
            ]
            return RunResult(run=self.info, cells=cells)

    def write(self) -> RunResult:
        """Write `results.json`. Raises ResultsNotWritten."""
        with self._lock:
            self._size = 0
            run = self.result()
            with self._written():
                record = run.write(self.folder).read_bytes()
            self._size, self._first_line, self._added = len(record), format_continuation(record), 0
            self._lanes, self._steps = len(self.info.lanes), len(self.info.steps)
            return run

    def _add(self, line: bytes) -> None:
        """Add a line to what was decided after `results.json` was written. Raises ResultsNotWritten."""
        size, self._size = self._size, 0  # If this fails, the next decision writes the whole record.
        with self._written(), (self.folder / DECIDED_FILE).open("ab" if self._added else "wb") as stream:
            stream.write(line if self._added else self._first_line + line)
            stream.flush()
            os.fsync(stream.fileno())
        self._size, self._added = size, self._added + len(line)
        self._lanes, self._steps = len(self.info.lanes), len(self.info.steps)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Turn the errors of writing into ResultsNotWritten."""
        try:
            yield
        except OSError as error:
            reason = (
                f"{error.strerror}; {format_free_space(self.folder)}; {A_RUN}"
                if is_full(error)
                else error.strerror
            )
            raise ResultsNotWritten(
                f"the results cannot be written into {self.folder}: {reason}",
                hint="free some disk space; the cells that ran before are in results.json, and "
                f"lab matrix --resume {shlex.quote(str(self.folder))} runs the others",
            ) from error

    def _complete(self, cell: Cell, result: CellResult) -> CellResult:
        """Complete a result with what every cell has: its evidence, and the command that runs it again."""
        folder = self.folder / cell.folder
        files = sorted(str(file.relative_to(self.folder)) for file in folder.rglob("*") if file.is_file())
        return result.with_parts(evidence=files, rerun=cell.rerun(self.info.options))
