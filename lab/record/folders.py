"""The folders of runs: their names and locks, finding one, what each holds, and deleting it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from lab.base.errors import UsageError, make_unknown_name_error
from lab.base.files import measure_size
from lab.base.locks import is_locked
from lab.record.run import RESULTS_FILE, RunResult

LOCK = ".lock"
RUN_LOG = "run.log"
# The variants that were made for a run and are not in the catalog.
VARIANTS = "variants"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a run's folder for the length of a block. Raises UsageError if another lab uses it.

    What a lab left half-written that was ended in the middle of a write is removed.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder}: another lab is at work in it", hint="wait until that one ends") from None
    try:
        for half in folder.glob(f".{RESULTS_FILE}.*"):
            half.unlink()
        yield
    finally:
        # In this order: after the release, another lab may have locked a file of this name.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def choose_new_folder(runs: Path, output: Path | None) -> Path:
    """Name the folder of a new run. Raises UsageError if there is a run in `output`."""
    if output is None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        folder, number = runs / stamp, 1
        while folder.exists():
            number += 1
            folder = runs / f"{stamp}-{number}"
        return folder
    if (output / RESULTS_FILE).exists():
        raise UsageError(
            f"-o {output}: there is a run in it already",
            hint="name a new folder, continue that run with --resume, or delete it",
        )
    return output.resolve()


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
    names = [folder.name for folder in runs.glob("*")] if runs.is_dir() else []
    raise (
        make_unknown_name_error("run", run, names)
        if names
        else UsageError(f"no run {run!r}: there are none yet")
    )


# -- runs on disk


class RunState(StrEnum):
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
    """One folder of the lab's runs; `size` is in bytes. If `record` cannot be read, `fault` says why."""

    folder: Path
    size: int
    is_being_made: bool
    record: RunResult | None
    fault: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> RunState:
        if self.is_being_made:
            return RunState.BEING_MADE
        if self.record is None:
            return RunState.DAMAGED
        if self.record.run.is_partial:
            return RunState.PARTIAL
        if self.record.run.interrupted:
            return RunState.INTERRUPTED
        return RunState.COMPLETE if self.record.run.finished else RunState.UNFINISHED


def list_folders(runs: Path) -> list[Path]:
    """The folders of the lab's runs, by name and so by their start."""
    return sorted(folder for folder in runs.iterdir() if folder.is_dir()) if runs.is_dir() else []


def read_past_run(folder: Path) -> PastRun:
    """Read what a folder of the lab's runs holds, damaged or not."""
    making, size = is_locked(folder / LOCK), measure_size(folder)
    try:
        return PastRun(folder, size, making, RunResult.read(folder))
    except UsageError as error:
        return PastRun(folder, size, making, None, str(error.args[0]))


def choose_deletable_runs(runs: Path, names: Sequence[str]) -> list[PastRun]:
    """The runs of these names, if all may be deleted. Raises UsageError for any other name."""
    past_runs = []
    for name in dict.fromkeys(names):
        folder = runs / name
        if Path(name).name != name or name in ("", "..") or folder.is_symlink():
            raise UsageError(
                f"{name!r} is not the name of one of the lab's own runs",
                hint="give a name that `lab runs` lists; a run elsewhere is deleted with rm -r",
            )
        if not folder.is_dir():
            raise make_unknown_name_error("run", name, [folder.name for folder in list_folders(runs)])
        if not (folder / RESULTS_FILE).is_file():
            raise UsageError(
                f"{folder} has no {RESULTS_FILE}, so it may not be a run",
                hint="look at it, and delete it with rm -r",
            )
        run = read_past_run(folder)
        if run.is_being_made:
            raise UsageError(f"run {name} is in progress", hint="end that lab first, with Ctrl-C")
        past_runs.append(run)
    return past_runs


def delete_run(run: PastRun) -> None:
    """Delete a run's folder. Raises UsageError if a lab is at work in it by now.

    `results.json` goes last: if this is stopped halfway, the rest is still a run that can be deleted.
    """
    with lock_folder(run.folder):
        for entry in run.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in (RESULTS_FILE, LOCK):
                entry.unlink()
        (run.folder / RESULTS_FILE).unlink()
    run.folder.rmdir()
