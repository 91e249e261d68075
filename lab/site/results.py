"""The results to publish: runs, and the newest result of each cell with the run that it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab.record import BuildRecord, CellResult, Finding, RunResult
from lab.site.anonymous import HostNumbers
from lab.site.page import slug
from lab.upstream.finished import FinishedCell

# A cell's identity: guest, variant, build.
Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Source:
    """A run that is published: its record, and its folder with the evidence.

    `numbers` are what hosts have in place of their names, which the folder's files may hold.
    """

    run: RunResult
    folder: Path
    numbers: HostNumbers | None = None

    @property
    def id(self) -> str:
        return self.run.run.id

    def build(self, name: str) -> BuildRecord:
        """Return the record of a build; a run has one of each build that its cells have."""
        return next(build for build in self.run.run.builds if build.name == name)


@dataclass(frozen=True)
class Published:
    """The newest result of a cell that says something about boxlite, or the newest at all.

    `missed` are runs that started later and could not run the cell. `older` are its results in runs that
    started before, the newest first.
    """

    cell: CellResult
    source: Source
    missed: tuple[Source, ...] = ()
    older: tuple[tuple[CellResult, Source], ...] = ()

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


def newest(sources: Sequence[Source]) -> dict[Identity, Published]:
    """Choose the result to publish for each cell, from sources that are sorted the newest first."""
    found: dict[Identity, list[tuple[CellResult, Source]]] = {}
    for source in sources:
        for cell in source.run.cells:
            found.setdefault(identity(cell), []).append((cell, source))
    return {key: _choose(results) for key, results in sorted(found.items())}


def _choose(results: Sequence[tuple[CellResult, Source]]) -> Published:
    ran = [number for number, (cell, _) in enumerate(results) if not cell.status.could_not_run]
    chosen = ran[0] if ran else 0
    cell, source = results[chosen]
    missed = tuple(later for _, later in results[:chosen])
    return Published(cell, source, missed, tuple(results[chosen + 1 :]))
