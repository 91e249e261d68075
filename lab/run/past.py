"""The lab's own runs: what each one is and found, their deletion, and a cell of one that is looked at again."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from lab import builds
from lab.base.errors import LabError, UsageError, unknown_name
from lab.base.files import is_locked
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Catalog
from lab.images import store
from lab.lane import prepare_image, upkeep
from lab.plan import Cell
from lab.record import RESULTS_FILE, CellResult, ExperimentPolicy, RunInfo, RunResult, Status
from lab.run import definitions
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


@dataclass(frozen=True)
class RecordedCell:
    """A cell of a run as it can be run now.

    `own_rootfs` is the layout that the run was given, None for the lab's own. `warnings` say in what the cell
    may differ by now from what the run saw.
    """

    cell: Cell
    result: CellResult
    own_rootfs: Path | None
    warnings: Sequence[str]


def names_of_cells(run: RunResult) -> list[str]:
    """The names of a run's cells, those that failed first; with their builds if the run has several."""
    several = len({cell.build for cell in run.cells}) > 1
    found = sorted(run.cells, key=lambda cell: cell.status.as_expected)
    return [_name(cell, with_build=several) for cell in found]


def find_cell(
    run: RunResult, wanted: str, known: Catalog, paths: Paths, named: Sequence[str] = (), again: str = ""
) -> RecordedCell:
    """The cell GUEST/VARIANT or GUEST/VARIANT/BUILD of a run. `named` and `again`: see `resolve_recorded`.

    Raises UsageError if the run has no such cell, or several, or if its build has to be named, or its build or
    root file system is not what it was; LabError if that could not be found out.
    """
    result = _result(run, wanted)
    options = run.run.options
    record = next((each for each in run.run.builds if each.name == result.build), None)
    if record is None:
        raise UsageError(
            f"run {run.run.id} does not say where its build {result.build} is from", hint="name another run"
        )
    build = builds.resolve_recorded([record], named, again)[record.name]
    cell = Cell(known.guest(result.guest), known.variant(result.variant), build).under(options)
    own = rootfs.check(Path(options.rootfs)) if options.rootfs else None
    return RecordedCell(cell, result, own, [*_changed(cell, run.run), *_another_image(cell, run.run, paths)])


def _result(run: RunResult, wanted: str) -> CellResult:
    matching = [
        cell for cell in run.cells if wanted in (_name(cell, with_build=True), _name(cell, with_build=False))
    ]
    if not matching:
        raise unknown_name(f"cell of run {run.run.id}", wanted, names_of_cells(run))
    if len(matching) > 1:
        choices = ", ".join(_name(cell, with_build=True) for cell in matching)
        raise UsageError(f"run {run.run.id} has {wanted} with several builds", hint=f"name one of {choices}")
    return matching[0]


def _name(cell: CellResult, *, with_build: bool) -> str:
    return "/".join([cell.guest, cell.variant, *([cell.build] if with_build else [])])


def _changed(cell: Cell, run: RunInfo) -> list[str]:
    """In what the cell's definitions differ from those of its run. Raises UsageError for another layout."""
    # What the run tried beside the cell decides nothing here.
    options = run.options.model_copy(update={"remedies": False, "experiments": ExperimentPolicy.NEVER})
    now = definitions.digests([cell], options)
    before = {name: digest for name, digest in run.definitions.items() if name in now}
    if not before:
        return ["the run does not say which definitions it used: they may have changed since"]
    if "rootfs" in definitions.differences(before, now):
        raise UsageError(
            f"the root file system {options.rootfs} changed since run {run.id}",
            hint="bring it back, or start a new run with it",
        )
    changed = definitions.changes(before, now, f"changed since run {run.id}")
    return [changed] if changed else []


def _another_image(cell: Cell, run: RunInfo, paths: Paths) -> list[str]:
    """Whether the guest's lanes start from another image than that run's did."""
    then = {lane.image for lane in run.lanes if lane.guest == cell.guest.name}
    try:
        image = store.find(paths, cell.guest)
        now = prepare_image.find(paths, cell.guest, image) if image else None
    except LabError:  # Whoever needs the image says what is wrong with it.
        return []
    if now is None or not then or now.manifest.disk_sha256 in then:
        return []
    return [f"{cell.guest.name} has another image now than in run {run.id}"]
