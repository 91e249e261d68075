"""The newest results of runs: for each cell the one to publish, with the run that it is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.version import InvalidVersion, Version

from lab import catalog, causes
from lab.base.errors import UsageError
from lab.base.files import slug
from lab.catalog import Catalog, remedies
from lab.catalog.remedies import Remedy
from lab.causes import Cause
from lab.record import BuildRecord, CellResult, Finding, RunResult
from lab.verdict.words import FinishedCell

# A cell's identity: guest, variant, build.
Identity = tuple[str, str, str]


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


@dataclass(frozen=True)
class Result:
    """The newest result of a cell that says something about boxlite, or the newest at all.

    `later` are its results in runs that started later and could not run it, `older` those in runs that started
    before, each the newest first.
    """

    cell: CellResult
    source: Source
    later: tuple[tuple[CellResult, Source], ...] = ()
    older: tuple[tuple[CellResult, Source], ...] = ()

    @property
    def missed(self) -> list[Source]:
        """The runs that started later and could not run the cell."""
        return [source for _, source in self.later]

    @property
    def identity(self) -> Identity:
        return identity(self.cell)

    @property
    def page(self) -> str:
        """The path of the cell's own page in the site."""
        return cell_page(self.identity)

    @property
    def findings(self) -> list[Finding]:
        """The cell's causes, also those of old records."""
        return self.finished.findings

    @cached_property
    def finished(self) -> FinishedCell:
        """The cell with its evidence, for what boxlite itself said about it."""
        return FinishedCell(self.cell, self.source.folder)


def cell_page(cell: Identity) -> str:
    """Return the path of a cell's own page in the site, whether the site has it or not."""
    guest, variant, build = map(slug, cell)
    return f"cells/{guest}/{variant}/{build}.html"


def identity(cell: CellResult) -> Identity:
    return cell.guest, cell.variant, cell.build


def newest(sources: Sequence[Source]) -> dict[Identity, Result]:
    """Choose the result to publish for each cell, from sources that are sorted the newest first."""
    results_of: dict[Identity, list[tuple[CellResult, Source]]] = {}
    for source in sources:
        for cell in source.run.cells:
            results_of.setdefault(identity(cell), []).append((cell, source))
    return {key: _choose(results) for key, results in sorted(results_of.items())}


def _choose(results: Sequence[tuple[CellResult, Source]]) -> Result:
    ran = [number for number, (cell, _) in enumerate(results) if not cell.status.could_not_run]
    chosen = ran[0] if ran else 0
    cell, source = results[chosen]
    return Result(cell, source, tuple(results[:chosen]), tuple(results[chosen + 1 :]))


@dataclass(frozen=True)
class Results:
    """The newest result of each cell, and what says what it means. `sources` are sorted: the newest first."""

    sources: tuple[Source, ...]
    cells: Mapping[Identity, Result]
    catalog: Catalog
    causes: Mapping[str, Cause]
    remedies: Mapping[str, Remedy]

    @cached_property
    def builds(self) -> list[str]:
        """The builds by version, the highest first; a release before another build of the same version."""
        records = {build.name: build for source in self.sources for build in source.run.run.builds}
        names = dict.fromkeys(build for _, _, build in self.cells)
        return sorted(names, key=lambda name: _rank(name, records.get(name)), reverse=True)

    @property
    def guests(self) -> list[str]:
        """The guests with results, by name."""
        return sorted({guest for guest, _, _ in self.cells})

    @property
    def variants(self) -> list[str]:
        """The variants with results; the unchanged guest comes first."""
        return sorted({variant for _, variant, _ in self.cells}, key=lambda name: (name != "stock", name))

    def of_guest(self, guest: str) -> list[Result]:
        return [result for result in self.cells.values() if result.cell.guest == guest]


def of(sources: Sequence[Source]) -> Results:
    """Return the newest results of runs. Raises UsageError for a run without cells, or that is named twice."""
    _check(sources)
    newest_first = tuple(sorted(sources, key=lambda source: source.run.run.started, reverse=True))
    return Results(
        sources=newest_first,
        cells=newest(newest_first),
        catalog=catalog.load(),
        causes=causes.known(),
        remedies=remedies.load(),
    )


def _check(sources: Sequence[Source]) -> None:
    folders: dict[str, Path] = {}
    for source in sources:
        if not source.run.cells:
            raise UsageError(
                f"{source.folder / 'results.json'}: cells: the run has none, so there is nothing to publish",
                hint="name a run that has results; `lab report RUN` shows them",
            )
        if source.id in folders:
            raise UsageError(
                f"{source.folder} and {folders[source.id]} are both run {source.id}",
                hint="name each run once",
            )
        folders[source.id] = source.folder


def _rank(name: str, record: BuildRecord | None) -> tuple[Version, bool, str]:
    try:
        version = Version(record.version if record else name)
    except InvalidVersion:
        version = Version("0")
    return version, record is not None and record.source == "PyPI", name
