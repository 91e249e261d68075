"""Everything that a site shows, loaded once: runs, results, evidence, history and definitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.version import InvalidVersion, Version

from lab import catalog, causes, remedies
from lab.base.errors import UsageError
from lab.catalog import Catalog
from lab.causes import Cause
from lab.record import BuildRecord, CellResult, RunResult
from lab.remedies import Remedy
from lab.report import protection
from lab.report.protection import Weakness
from lab.site import evidence
from lab.site.anonymous import HostNumbers
from lab.site.evidence import CellEvidence
from lab.site.history import History
from lab.site.results import Identity, Published, Source, newest


@dataclass(frozen=True)
class Site:
    """Everything that the pages show. `sources` are sorted: the newest first."""

    sources: tuple[Source, ...]
    cells: Mapping[Identity, Published]
    evidence: Mapping[Identity, CellEvidence]
    history: History
    catalog: Catalog
    causes: Mapping[str, Cause]
    remedies: Mapping[str, Remedy]

    @cached_property
    def builds(self) -> list[str]:
        """The builds by version, the highest first; a release before another build of the same version."""
        records = {build.name: build for source in self.sources for build in source.run.run.builds}
        names = dict.fromkeys(build for _, _, build in self.cells)
        return sorted(names, key=lambda name: _rank(name, records.get(name)), reverse=True)

    @cached_property
    def weaknesses(self) -> list[Weakness]:
        """Where boxes work and are less protected than in another cell, whatever run that is from."""
        return protection.weaknesses([each.cell for each in self.cells.values()])

    def weaknesses_of(self, cell: CellResult) -> list[Weakness]:
        """Those that concern one of the cells shown."""
        return [each for each in self.weaknesses if any(weak is cell for weak in each.cells)]

    @property
    def guests(self) -> list[str]:
        """The guests with results, by name."""
        return sorted({guest for guest, _, _ in self.cells})

    @property
    def variants(self) -> list[str]:
        """The variants with results; the unchanged guest comes first."""
        return sorted({variant for _, variant, _ in self.cells}, key=lambda name: (name != "stock", name))

    def of_guest(self, guest: str) -> list[Published]:
        return [each for each in self.cells.values() if each.cell.guest == guest]


def load(folders: Sequence[Path], before: History, *, host_names: bool = False) -> Site:
    """Read the runs to publish; `before` is the history of the site that this one replaces.

    Hosts have numbers instead of their names, unless `host_names` is set. Raises UsageError for a run that
    cannot be read or has no cells.
    """
    runs = [RunResult.read(folder) for folder in folders]
    numbers = None if host_names else HostNumbers()
    shown = [numbers.run(run) for run in runs] if numbers else runs
    sources = [Source(run, folder, numbers) for run, folder in zip(shown, folders, strict=True)]
    _check(sources)
    newest_first = tuple(sorted(sources, key=lambda each: each.run.run.started, reverse=True))
    cells = newest(newest_first)
    return Site(
        sources=newest_first,
        cells=cells,
        evidence=evidence.plan(cells.values()),
        history=before.published(newest_first, cells),
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
