"""The page of each cell: its result, what shows the cause, what was tried, and how to run it again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath

from lab.base import guard
from lab.base.errors import LabError
from lab.evidence import AUDIT_FILE, KERNEL_FILE, PROBES_FILE, refusals
from lab.probes import Probe
from lab.record import CellResult, LaneRecord
from lab.report import protection, table
from lab.site.charts.kinds import CELL_STEPS
from lab.site.evidence import CellEvidence, EvidenceFile
from lab.site.maintainers.facts import digests, environment
from lab.site.maintainers.matrix import MARKS, MATRIX_PAGE, Matrix
from lab.site.maintainers.runs import page_of_run
from lab.site.model import Site
from lab.site.page import Page, not_shown
from lab.site.results import Identity, Published, Source, identity
from lab.upstream import words

# What a page shows of a file; the rest is in the file.
MOST_LINES = 12
LONGEST_LINE = 400  # characters


@dataclass(frozen=True)
class Excerpt:
    """The lines of a file of evidence that tell of a refusal, and how many more there are."""

    file: EvidenceFile
    lines: list[str]
    more: int


@dataclass(frozen=True)
class Shown:
    """What the page of one cell shows beside the cell's own record."""

    published: Published
    evidence: CellEvidence

    @property
    def cell(self) -> CellResult:
        return self.published.cell

    @property
    def files(self) -> Mapping[str, list[EvidenceFile]]:
        """The copied files by the folder that they are in; the cell's own come first, under an empty name."""

        def folder(file: EvidenceFile) -> str:
            parts = PurePosixPath(file.name).parts
            return "" if len(parts) == 1 or parts[0] in ("suite", "boxlite") else "/".join(parts[:2])

        ordered = sorted(self.evidence.files, key=lambda file: (folder(file), file.name))
        return {name: list(files) for name, files in groupby(ordered, key=folder)}

    @property
    def refusals(self) -> list[Excerpt]:
        """What the kernel refused, from the files that the site has."""
        copied = {file.name: file for file in self.evidence.files}
        found = refusals(self.published.finished.folder, [f for f in (KERNEL_FILE, AUDIT_FILE) if f in copied])
        return [
            Excerpt(copied[name], [_cut(line) for line in lines[:MOST_LINES]], max(len(lines) - MOST_LINES, 0))
            for name, lines in found.items()
        ]

    @property
    def probes(self) -> dict[str, Probe]:
        """The probes that ran; none if their file is missing or damaged."""
        if not any(file.name == PROBES_FILE for file in self.evidence.files):
            return {}
        try:
            probes = self.published.finished.evidence.probes.by_name()
        except LabError:
            return {}
        return {name: probe for name, probe in probes.items() if probe.status is not None}

    @property
    def lanes(self) -> list[LaneRecord]:
        """The lanes of its run that served its guest."""
        return [lane for lane in self.published.source.run.run.lanes if lane.guest == self.cell.guest]

    @property
    def steps(self) -> list[tuple[str, float]]:
        """The cell's own steps with their seconds, in the order in which they ran."""
        return [(step, self.cell.seconds[step]) for step in CELL_STEPS if step in self.cell.seconds]


@dataclass(frozen=True)
class Elsewhere:
    """The same cell in another run."""

    source: Source
    cell: CellResult


def outputs(site: Site) -> Iterable[Page]:
    """Make a page for each cell."""
    matrix = Matrix.of(site)
    order = matrix.order
    elsewhere = _by_identity(site)
    for number, key in enumerate(order):
        published = site.cells[key]
        before = site.cells[order[number - 1]] if number else None
        following = site.cells[order[number + 1]] if number + 1 < len(order) else None
        make = partial(_page, site, published, elsewhere[key], before, following)
        yield guard.shown(make, partial(not_shown, published.page, " ".join(key)))


def _page(
    site: Site,
    published: Published,
    everywhere: list[Elsewhere],
    before: Published | None,
    following: Published | None,
) -> Page:
    guest, variant, build = published.identity
    shown = Shown(published, site.evidence.get(published.identity, CellEvidence()))
    said = published.finished.words if shown.files else words.Words()
    return Page(
        published.page,
        title=f"{guest}, {variant}, boxlite {build}",
        template="cell.html",
        values={
            "cell": published.cell,
            "source": published.source,
            "missed": published.missed,
            "shown": shown,
            "given": protection.given([published.cell]),
            "not_given": protection.not_given([published.cell]),
            "weaknesses": site.weaknesses_of(published.cell),
            "mark": MARKS,
            "table": table,
            "causes": site.causes,
            "known_remedies": site.remedies,
            "variant": site.catalog.variants.get(variant),
            "said": said,
            "judged": words.judge(published.cell, said, site.remedies),
            "environment": environment(published),
            "digests": digests(published),
            "others": [
                site.cells[key]
                for key in ((guest, variant, other) for other in site.builds)
                if key in site.cells and key != published.identity
            ],
            "elsewhere": [each for each in everywhere if each.source is not published.source],
            "before": before,
            "following": following,
            "matrix_page": MATRIX_PAGE,
            "page_of_run": page_of_run,
        },
    )


def _by_identity(site: Site) -> dict[Identity, list[Elsewhere]]:
    found: dict[Identity, list[Elsewhere]] = {}
    for source in site.sources:
        for cell in source.run.cells:
            found.setdefault(identity(cell), []).append(Elsewhere(source, cell))
    return found


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} …"
