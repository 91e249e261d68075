"""The newest results of runs: for each cell the one to publish, with the run that it is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from packaging.version import InvalidVersion, Version

from lab import catalog, causes
from lab.base.errors import UsageError
from lab.base.files import group_values, make_slug
from lab.catalog import Catalog, remedies
from lab.catalog.remedies import Remedy
from lab.causes import Cause
from lab.record import BuildRecord, CellResult, RunResult, Status, strip_kernel
from lab.verdict.words import FinishedCell

# A cell's identity: guest, variant, build.
Identity = tuple[str, str, str]
# The variant that changes nothing.
STOCK = "stock"


class AnswerKind(StrEnum):
    """The kind of an answer: it has a shape, a colour, and the words of its headline."""

    WORKS = "works"
    BLOCKED = "blocked"
    TROUBLE = "trouble"
    UNTESTED = "untested"

    @classmethod
    def of(cls, status: Status | None) -> "AnswerKind":
        """Return the kind for a cell's status; None: the cell was in no run."""
        match status:
            case Status.PASS | Status.XPASS:
                return cls.WORKS
            case Status.FAIL | Status.XFAIL:
                return cls.BLOCKED
            case Status.FLAKY:
                return cls.TROUBLE
        return cls.UNTESTED


@dataclass(frozen=True)
class Source:
    """A run that is published: its record, and its folder with the evidence."""

    run: RunResult
    folder: Path

    @property
    def id(self) -> str:
        return self.run.run.id

    def build(self, name: str) -> BuildRecord:
        """Return the record of a build; a run has one of each build that its cells have."""
        return next(build for build in self.run.run.builds if build.name == name)

    def ran_by(self, cell: CellResult) -> str:
        """Return the id of the run that ran a cell: this one, or that which the result is kept from."""
        return cell.history.kept.run if cell.history.kept else self.id

    def began(self, cell: CellResult) -> datetime:
        """Return when that run began."""
        return cell.history.kept.began if cell.history.kept else self.run.run.started


@dataclass(frozen=True)
class NewestResult:
    """The newest result of a cell that says something about boxlite, or the newest at all.

    `later` are its results in runs that started later and had no guest for it, `older` those in runs that
    started before, each the newest first.
    """

    cell: CellResult
    source: Source
    later: tuple[tuple[CellResult, Source], ...] = ()
    older: tuple[tuple[CellResult, Source], ...] = ()

    @property
    def identity(self) -> Identity:
        return identify_cell(self.cell)

    @property
    def page(self) -> str:
        return format_cell_page(self.identity)

    @property
    def began(self) -> datetime:
        """When the run began that ran the cell."""
        return self.source.began(self.cell)

    @cached_property
    def finished(self) -> FinishedCell:
        """The cell with its evidence, for what boxlite itself said about it."""
        return FinishedCell(self.cell, self.source.folder)


def format_cell_page(cell: Identity) -> str:
    """Return the path of a cell's own page in the site, whether the site has it or not."""
    guest, variant, build = map(make_slug, cell)
    return f"cells/{guest}/{variant}/{build}.html"


def identify_cell(cell: CellResult) -> Identity:
    return cell.guest, cell.variant, cell.build


@dataclass(frozen=True)
class Results:
    """The newest result of each cell, and what says what it means. `sources` are sorted: the newest first."""

    sources: tuple[Source, ...]
    cells: Mapping[Identity, NewestResult]
    catalog: Catalog
    causes: Mapping[str, Cause]
    remedies: Mapping[str, Remedy]

    @cached_property
    def builds(self) -> list[str]:
        """The builds by version, the highest first; a release before another build of the same version."""
        records = {build.name: build for source in self.sources for build in source.run.run.builds}

        def rank(name: str) -> tuple[Version, bool, str]:
            record = records.get(name)
            try:
                version = Version(record.version if record else name)
            except InvalidVersion:
                version = Version("0")
            # With another suite than the usual one, a release has another name than its version.
            is_release = record is not None and record.source == "PyPI" and name == record.version
            return version, is_release, name

        return sorted({build for _, _, build in self.cells}, key=rank, reverse=True)

    @property
    def guests(self) -> list[str]:
        """Those with another kernel come after the same guest with its own."""
        return sorted({guest for guest, _, _ in self.cells}, key=lambda name: (strip_kernel(name), name))

    @property
    def variants(self) -> list[str]:
        """The variants with results; the unchanged guest comes first."""
        return sorted({variant for _, variant, _ in self.cells}, key=lambda name: (name != STOCK, name))

    def of_guest(self, guest: str) -> list[NewestResult]:
        return [result for result in self.cells.values() if result.cell.guest == guest]

    def explanation(self, cause: str) -> str:
        entry = self.causes.get(cause)
        return entry.explanation if entry else f"The cause is {cause}, which this lab no longer knows."


def choose_newest_results(sources: Sequence[Source]) -> Results:
    """Return the newest results of runs. Raises UsageError for a run that is named twice."""
    folders: dict[str, Path] = {}
    for source in sources:
        if source.id in folders:
            raise UsageError(
                f"{source.folder} and {folders[source.id]} are both run {source.id}",
                hint="name each run once",
            )
        folders[source.id] = source.folder
    newest_first = tuple(sorted(sources, key=lambda source: source.run.run.started, reverse=True))
    pairs = [(cell, source) for source in newest_first for cell in source.run.cells]
    # A result that later runs took over is shown once: of the run that ran it, if that is one of these.
    pairs.sort(key=lambda pair: (pair[1].began(pair[0]), pair[0].history.kept is None), reverse=True)
    once: dict[tuple[Identity, str], tuple[CellResult, Source]] = {}
    for cell, source in pairs:
        once.setdefault((identify_cell(cell), source.ran_by(cell)), (cell, source))
    of_cells = group_values((identity, result) for (identity, _), result in once.items())
    newest = {}
    for key, results in sorted(of_cells.items()):
        ran = (number for number, (cell, _) in enumerate(results) if not cell.lacked_guest)
        number = next(ran, 0)
        cell, source = results[number]
        newest[key] = NewestResult(cell, source, tuple(results[:number]), tuple(results[number + 1 :]))
    return Results(newest_first, newest, catalog.load_catalog(), causes.list_causes(), remedies.load_remedies())
