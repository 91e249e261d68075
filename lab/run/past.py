"""The lab's own runs: what each one is and found, and their deletion."""

import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from lab.base.errors import UsageError, unknown_name
from lab.base.files import is_locked
from lab.lane import upkeep
from lab.record import RESULTS_FILE, RunResult, Status
from lab.run.journal import LOCK, locked_folder


class State(StrEnum):
    """How far a run is."""

    COMPLETE = "complete"
    BEING_MADE = "being made"
    INTERRUPTED = "interrupted"
    # It was merged without some of its shards.
    PARTIAL = "partial"
    # Its lab died before it could write that the run ended.
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class PastRun:
    """One folder of the lab's runs. `size` is in bytes.

    `record` is None if it cannot be read; `fault` says why.
    """

    folder: Path
    size: int
    is_being_made: bool
    record: RunResult | None = None
    fault: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        if self.is_being_made:
            return State.BEING_MADE
        if self.record is None:
            return State.DAMAGED
        if self.record.run.is_partial:
            return State.PARTIAL
        if self.record.run.interrupted:
            return State.INTERRUPTED
        return State.COMPLETE if self.record.run.finished else State.UNFINISHED

    @property
    def started(self) -> datetime | None:
        return self.record.run.started if self.record else None

    @property
    def builds(self) -> list[str]:
        return [build.name for build in self.record.run.builds] if self.record else []

    @property
    def counts(self) -> dict[Status, int]:
        """How many cells have each status; statuses that no cell has are left out."""
        found = Counter(cell.status for cell in self.record.cells) if self.record else Counter[Status]()
        return {status: found[status] for status in Status if found[status]}

    @property
    def exit_status(self) -> int | None:
        """The exit status that `lab report` gives for the run."""
        return self.record.exit_status() if self.record else None


def folders(runs: Path) -> list[Path]:
    """The folders of the lab's runs, by name and so by their start."""
    return sorted(folder for folder in runs.iterdir() if folder.is_dir()) if runs.is_dir() else []


def read(folder: Path) -> PastRun:
    """Read what a folder of the lab's runs holds, damaged or not."""
    making = is_locked(folder / LOCK)
    record, fault = None, ""
    try:
        record = RunResult.read(folder)
    except UsageError as error:
        fault = str(error.args[0])
    return PastRun(folder, upkeep.size(folder), making, record, fault)


def to_delete(runs: Path, names: list[str]) -> list[PastRun]:
    """The runs of these names, all of which may be deleted. Raises UsageError for any other name."""
    return [_deletable(runs, name) for name in dict.fromkeys(names)]


def delete(run: PastRun) -> None:
    """Delete a run's folder. Raises UsageError if a lab is at work in it by now.

    `results.json` goes last: if this is stopped halfway, the rest is still a run that can be deleted.
    """
    with locked_folder(run.folder):
        for entry in run.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in (RESULTS_FILE, LOCK):
                entry.unlink()
        (run.folder / RESULTS_FILE).unlink()
    run.folder.rmdir()


def _deletable(runs: Path, name: str) -> PastRun:
    folder = runs / name
    if Path(name).name != name or name in ("", "..") or folder.is_symlink():
        raise UsageError(
            f"{name!r} is not the name of one of the lab's own runs",
            hint="give a name that `lab runs` lists; a run elsewhere is deleted with rm -r",
        )
    if not folder.is_dir():
        raise unknown_name("run", name, [each.name for each in folders(runs)])
    if not (folder / RESULTS_FILE).is_file():
        raise UsageError(
            f"{folder} has no {RESULTS_FILE}, so it may be no run",
            hint="look at it, and delete it with rm -r",
        )
    run = read(folder)
    if run.is_being_made:
        raise UsageError(f"run {name} is being made", hint="end that lab first, with Ctrl-C")
    return run
