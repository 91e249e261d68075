"""A cell of an earlier run that is looked at again, with the build and the root file system it was run with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import builds
from lab.base.errors import LabError, UsageError, unknown_name
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Catalog
from lab.images import store
from lab.lane import prepare_image
from lab.plan import Cell
from lab.record import CellResult, ExperimentPolicy, RunInfo, RunResult
from lab.run import definitions


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


def names(run: RunResult) -> list[str]:
    """The names of a run's cells, those that failed first; with their builds if the run has several."""
    several = len({cell.build for cell in run.cells}) > 1
    found = sorted(run.cells, key=lambda cell: cell.status.as_expected)
    return [_name(cell, with_build=several) for cell in found]


def find(
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
        raise unknown_name(f"cell of run {run.run.id}", wanted, names(run))
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
