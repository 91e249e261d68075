"""Runs on disk: what each is, its deletion, one of its cells looked at again, and shards joined to one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import builds
from lab.base.errors import UsageError, make_unknown_name_error
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Catalog
from lab.lane import prepare_image
from lab.plan import Cell
from lab.record import (
    CellResult,
    ExperimentPolicy,
    RunResult,
)
from lab.run import start

# -- a cell of a run


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


def find_cell(
    run: RunResult, name: str, catalog: Catalog, paths: Paths, build_names: Sequence[str] = (), again: str = ""
) -> RecordedCell:
    """The cell GUEST/VARIANT or GUEST/VARIANT/BUILD of a run.

    `build_names` and `again`: see `resolve_recorded_builds`.

    Raises UsageError if the run has no such cell, or several, or if its build has to be named, or its build or
    root file system is not what it was; LabError if that could not be found out.
    """
    matching = [cell for cell in run.cells if name in (cell.name, f"{cell.guest}/{cell.variant}")]
    if not matching:
        raise make_unknown_name_error(f"cell of run {run.run.id}", name, run.cell_names())
    if len(matching) > 1:
        choices = ", ".join(cell.name for cell in matching)
        raise UsageError(f"run {run.run.id} has {name} with several builds", hint=f"name one of {choices}")
    [result] = matching
    recorded = [build for build in run.run.builds if build.name == result.build]
    build = builds.resolve_recorded_builds(recorded, build_names, again)[result.build]
    # What the run tried beside the cell decides nothing here.
    options = run.run.options.with_values(remedies=False, experiments=ExperimentPolicy.NEVER)
    guest, variant = catalog.guest(result.guest, result.kernel), catalog.variant(result.variant)
    cell = Cell(guest, variant, build).under(options)
    own_rootfs = rootfs.check_layout(Path(options.rootfs)) if options.rootfs else None
    digests = start.compute_digests([cell], options)
    earlier_digests = {name: digest for name, digest in run.run.definitions.items() if name in digests}
    changed = start.list_differences(earlier_digests, {name: digests[name] for name in earlier_digests})
    if "rootfs" in changed:
        raise UsageError(
            f"the root file system {options.rootfs} changed since run {run.run.id}",
            hint="bring it back, or start a new run with it",
        )
    warnings = [f"changed since run {run.run.id}: {', '.join(changed)}"] if changed else []
    earlier_images = {lane.image for lane in run.run.lanes if lane.guest == cell.guest.name}
    ready = prepare_image.find_ready_image(paths, cell.guest)
    if ready and earlier_images and ready.manifest.disk_sha256 not in earlier_images:
        warnings.append(f"{cell.guest.name} has another image now than in run {run.run.id}")
    return RecordedCell(cell, result, own_rootfs, warnings)


# -- shards
