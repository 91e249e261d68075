"""Starting a run: a new one, or one that is resumed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab import __version__, builds
from lab.base.errors import UsageError
from lab.catalog import Catalog
from lab.plan import Cell, Part, of_part
from lab.record import CellResult, RunInfo, RunOptions, RunResult, Shard
from lab.run import definitions


@dataclass(frozen=True)
class Start:
    """A run to be run: its whole plan, what holds for all of it, and the results that stand already."""

    cells: list[Cell]
    info: RunInfo
    kept: dict[Path, CellResult] = field(default_factory=dict)

    @property
    def whole(self) -> list[CellResult]:
        """The results about which nothing more is to be done."""
        return [result for result in self.kept.values() if not result.has_more_to_try]

    @property
    def left(self) -> list[Cell]:
        """The cells that are to be run, or on which more is to be tried."""
        return [
            cell
            for cell in self.cells
            if cell.folder not in self.kept or self.kept[cell.folder].has_more_to_try
        ]


def begin(folder: Path, plan: Sequence[Cell], *, command: str, options: RunOptions, part: Part | None) -> Start:
    """A new run of a plan, or of one shard of it. Raises UsageError for a shard that has nothing to do."""
    cells = of_part(plan, part, options)
    info = RunInfo(
        id=folder.name,
        started=datetime.now(UTC),
        command=command,
        lab=__version__,
        options=options,
        definitions=definitions.digests(cells, options),
        shard=Shard(number=part.number, count=part.count, plan=[c.name for c in plan]) if part else None,
        builds=[build.record() for build in dict.fromkeys(cell.build for cell in plan)],
    )
    return Start(cells, info)


def resume(run: RunResult, catalog: Catalog) -> Start:
    """What is missing of a run, an `error` or `not-run` is to be run again; everything else stands.

    Of a cell that stands, what was not tried on it, or met a fault, is tried.

    Raises UsageError where its definitions or builds are not what they were, and says which.
    """
    if run.run.parts:
        raise UsageError(f"run {run.run.id} was merged of others", hint="resume those, and merge again")
    known = {record.name: builds.resolve_recorded(record) for record in run.run.builds}
    cells = [
        Cell(catalog.guest(cell.guest), catalog.variant(cell.variant), known[cell.build]) for cell in run.cells
    ]
    now = definitions.digests(cells, run.run.options)
    changed = definitions.differences(run.run.definitions, now)
    if changed:
        raise UsageError(
            f"run {run.run.id} cannot be resumed, changed since: {', '.join(changed)}",
            hint="start a new run, or bring back the definitions it was started with",
        )
    kept = {
        cell.folder: result
        for cell, result in zip(cells, run.cells, strict=True)
        if not result.status.could_not_run
    }
    info = run.run.model_copy(
        update={"interrupted": False, "finished": None, "resumed": [*run.run.resumed, datetime.now(UTC)]}
    )
    return Start(cells, info, kept)
