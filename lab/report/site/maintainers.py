"""The pages for maintainers: the matrix, its cells, boxlite's wrong diagnoses, and the runs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import PurePosixPath

from lab.base import notices
from lab.base.errors import LabError
from lab.base.files import slug
from lab.causes.evidence import AUDIT_FILE, KERNEL_FILE, PROBES_FILE, refusals
from lab.check import distributions
from lab.check.results import Identity, Result, Source, identity
from lab.probes import Facts, Probe
from lab.record import CellResult, Host, LaneRecord, RunResult, Status
from lab.report import judgements, protection, table
from lab.report.judgements import Review
from lab.report.site.charts import timelines
from lab.report.site.model import CellEvidence, EvidenceFile, Site
from lab.report.site.page import Page, not_shown
from lab.verdict import words
from lab.verdict.words import WordsVerdict

UNKNOWN = "not known: the lab did not read it"


def environment(published: Result) -> dict[str, str]:
    """Return what the cell ran on; what the lab did not read is named as such."""
    cell, run = published.cell, published.source.run.run
    guest = dict(_guest(cell.facts)) if cell.facts else {"guest": UNKNOWN}
    context = cell.context
    confined = (
        f"AppArmor {context.apparmor or 'none'}, SELinux {context.selinux or 'none'}" if context else UNKNOWN
    )
    build = published.source.build(cell.build)
    made = f"{build.version} from {build.source}"
    hosts_of_cell = run.hosts(cell.guest, cell.lane)
    called = table.host_names(run)
    several = {"run by": " / ".join(called[host] for host in hosts_of_cell)} if len(called) > 1 else {}
    load = {"load": ", ".join(cell.stress)} if cell.stress else {}
    return (
        guest
        | {"suite confined by": confined, **load, "boxlite": made, **several}
        | (_hosts(hosts_of_cell) or {"host": UNKNOWN})
    )


def digests(published: Result) -> dict[str, str]:
    """Return the SHA-256 of what was tested: the image of the cell's lane, and the files of the build.

    Of a cell whose lane has no record, the images of all lanes of the guest.
    """
    lanes = published.source.run.run.lanes_of(published.cell.guest, published.cell.lane)
    images = dict.fromkeys(lane.image for lane in lanes)
    named = {f"image {number}" if len(images) > 1 else "image": image for number, image in enumerate(images, 1)}
    build = published.source.build(published.cell.build)
    return named | build.files


def _guest(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "system", facts.os.pretty_name or UNKNOWN
    yield "kernel", facts.kernel
    yield "Python, glibc", f"{facts.python}, {facts.glibc}"
    yield "security modules", ", ".join(facts.lsm) if facts.lsm is not None else UNKNOWN
    if bubblewrap := facts.bubblewrap:
        setuid = ", set-user-ID" if bubblewrap.setuid else ""
        yield "bubblewrap", f"{bubblewrap.version or 'version unknown'} ({bubblewrap.path}{setuid})"
    else:
        yield "bubblewrap", "not installed"
    if apparmor := facts.apparmor:
        mediates = "mediates" if apparmor.userns_mediation else "does not mediate"
        yield "AppArmor", f"{apparmor.version or 'version unknown'}, {mediates} user namespaces"
    else:
        yield "AppArmor", "not in use"
    yield "SELinux", f"{facts.selinux.mode}, policy {facts.selinux.policy}" if facts.selinux else "not in use"
    yield "/dev/kvm", facts.kvm.mode if facts.kvm else "none"


def _hosts(hosts_of_cell: Iterable[Host]) -> dict[str, str]:
    """Each fact about the hosts; where they differ, what each of them has."""
    values_of: dict[str, list[str]] = {}
    for host in hosts_of_cell:
        for name, value in _host(host):
            values_of.setdefault(name, []).append(value)
    return {name: " / ".join(dict.fromkeys(values)) for name, values in values_of.items()}


def _host(host: Host) -> Iterator[tuple[str, str]]:
    yield "host", f"{host.system}, kernel {host.kernel}, {host.cpus} CPUs, {host.memory_mib} MiB"
    yield "libvirt, QEMU", f"{host.libvirt}, {host.qemu}"
    yield "acceleration", f"{host.acceleration}: {host.acceleration_reason}"


MATRIX_PAGE = "matrix.html"

# What the shape and the colour of a mark say, by status. The word beside them is the status itself.
MARKS = {
    Status.PASS: "works",
    Status.FAIL: "blocked",
    Status.XFAIL: "blocked",
    Status.XPASS: "trouble",
    Status.FLAKY: "trouble",
    Status.ERROR: "trouble",
    Status.NOT_APPLICABLE: "untested",
    Status.NOT_RUN: "untested",
}
MEANINGS = {
    Status.PASS: "every test passed",
    Status.FAIL: "boxlite failed where a pass is expected, or for another cause than expected",
    Status.XFAIL: "boxlite failed as expected, for the expected cause",
    Status.XPASS: "boxlite passed where a failure is expected",
    Status.FLAKY: "repeats of the suite disagree",
    Status.NOT_APPLICABLE: "does not apply to this guest: not tested",
    Status.ERROR: "a fault of the lab: says nothing about boxlite",
    Status.NOT_RUN: "not tested",
}
# What a maintainer looks at first.
ATTENTION = (Status.FAIL, Status.XPASS, Status.FLAKY, Status.ERROR, Status.NOT_RUN)


@dataclass(frozen=True)
class Square:
    """A cell in the table. `differs`: another build has another status or cause in this guest and variant.

    `weak`: its boxes work and are less protected than those of the same tests and build in another cell.
    """

    published: Result
    differs: bool
    weak: bool

    @property
    def cell(self) -> CellResult:
        return self.published.cell


@dataclass(frozen=True)
class Choice:
    """One value that a filter offers, and how many cells have it."""

    value: str
    label: str
    count: int


@dataclass(frozen=True)
class Matrix:
    """The table: a row per guest; a group of columns per variant, with a column for each of its builds."""

    cells: Mapping[Identity, Result]
    guests: list[str]
    columns: dict[str, list[str]]
    weak: set[int]

    @classmethod
    def of(cls, site: Site) -> "Matrix":
        """Arrange the cells of a site. A column without any cell is left out."""
        columns_with_cells = {(variant, build) for _, variant, build in site.cells}
        columns = {
            variant: [build for build in site.builds if (variant, build) in columns_with_cells]
            for variant in site.variants
        }
        return cls(site.cells, site.guests, columns, protection.weak_cells(site.weaknesses))

    @property
    def order(self) -> list[Identity]:
        """The identities of all cells, row by row."""
        places = [
            (guest, variant, build)
            for guest in self.guests
            for variant, builds in self.columns.items()
            for build in builds
        ]
        return [place for place in places if place in self.cells]

    def square(self, guest: str, variant: str, build: str) -> Square | None:
        """Return a square; None if no run's plan has this cell."""
        published = self.cells.get((guest, variant, build))
        if published is None:
            return None
        return Square(published, (guest, variant) in self._differing, id(published.cell) in self.weak)

    def kernel(self, guest: str) -> str:
        """Return the kernel that was read in a guest; a dash if it never ran."""
        return table.kernel(
            published.cell for published in self.cells.values() if published.cell.guest == guest
        )

    @cached_property
    def _differing(self) -> set[tuple[str, str]]:
        outcomes: dict[tuple[str, str], set[tuple[Status, str | None]]] = {}
        for (guest, variant, _), published in self.cells.items():
            if not published.cell.status.could_not_run:
                outcomes.setdefault((guest, variant), set()).add((published.cell.status, published.cell.cause))
        return {place for place, of_builds in outcomes.items() if len(of_builds) > 1}


def matrix_page(site: Site) -> Iterable[Page]:
    """Make the page of the matrix."""
    matrix = Matrix.of(site)
    yield Page(
        MATRIX_PAGE,
        title="The whole matrix",
        template="matrix.html",
        values={
            "matrix": matrix,
            "variants": site.catalog.variants,
            "host_pages": {guest: host.page for host in distributions.group(site) for guest in host.guests},
            "filters": _filters(matrix),
            "marks": MARKS,
            "meanings": {status: text for status, text in MEANINGS.items() if _has(site, status)},
            "table": table,
            "attention": ATTENTION,
        },
        nav="Matrix",
        scripts=("matrix.js",),
    )


def _has(site: Site, status: Status) -> bool:
    return any(each.cell.status is status for each in site.cells.values())


def _filters(matrix: Matrix) -> dict[str, list[Choice]]:
    """Return the filters by their names in the address, each with the values that occur."""
    cells = [published.cell for published in matrix.cells.values()]
    builds = list(dict.fromkeys(build for builds in matrix.columns.values() for build in builds))
    causes = sorted({cell.cause for cell in cells if cell.cause})
    return {
        "guest": _choices(matrix.guests, Counter(cell.guest for cell in cells)),
        "variant": _choices(matrix.columns, Counter(cell.variant for cell in cells)),
        "build": _choices(builds, Counter(cell.build for cell in cells)),
        "status": _choices(map(str, Status), Counter(str(cell.status) for cell in cells)),
        "cause": _choices([*causes, ""], Counter(cell.cause or "" for cell in cells)),
    }


def _choices(values: Iterable[str], counts: Counter[str]) -> list[Choice]:
    return [Choice(value, value or "no cause", counts[value]) for value in values if counts[value]]


def findings_page(site: Site) -> Iterable[Page]:
    """Make the page of the findings."""
    yield Page(
        "findings.html",
        title="Findings on boxlite's own diagnosis",
        template="findings.html",
        values={
            "reviews": {source.id: _review(site, source) for source in site.sources},
            "verdicts": list(WordsVerdict),
            "not_given": protection.not_given(published.cell for published in site.cells.values()),
            "page_of": partial(_page_of, site),
            "causes": site.causes,
            "cured": judgements.cured,
        },
        nav="Findings",
    )


def _review(site: Site, source: Source) -> Review:
    """Review the cells of a run whose result is shown: an older result of the same cell adds nothing."""
    shown = [cell for cell in source.run.cells if site.cells[identity(cell)].source is source]
    run = source.run.model_copy(update={"cells": shown})
    return judgements.review(run, source.folder, site.remedies)


def _page_of(site: Site, cell: CellResult) -> str:
    return site.cells[identity(cell)].page


RUNS_PAGE = "runs.html"


def page_of_run(source: Source) -> str:
    """Return the path of a run's page in the site."""
    return f"runs/{slug(source.id)}.html"


def run_pages(site: Site) -> Iterator[Page]:
    """Make the page of all runs, and a page for each."""
    yield Page(
        RUNS_PAGE,
        title="Runs",
        template="runs.html",
        values={"sources": site.sources, "table": table, "page_of_run": page_of_run},
        nav="Runs",
    )
    for source in site.sources:
        yield Page(
            page_of_run(source),
            title=f"Run {source.id}",
            template="run.html",
            values={
                "run": source.run,
                "missing": _missing(source.run),
                "timelines": timelines,
                "mark": MARKS,
                "table": table,
                "page_of": partial(_page_of, site),
                "runs_page": RUNS_PAGE,
            },
        )


def _missing(run: RunResult) -> dict[tuple[Status, str], list[CellResult]]:
    """The cells that could not be run, by their status and the reason."""
    missing: dict[tuple[Status, str], list[CellResult]] = {}
    for cell in run.cells:
        if cell.status.could_not_run:
            missing.setdefault((cell.status, cell.reason), []).append(cell)
    return missing


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

    published: Result
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
        lines_of = refusals(
            self.published.finished.folder, [f for f in (KERNEL_FILE, AUDIT_FILE) if f in copied]
        )
        return [
            Excerpt(copied[name], [_cut(line) for line in lines[:MOST_LINES]], max(len(lines) - MOST_LINES, 0))
            for name, lines in lines_of.items()
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


def cell_pages(site: Site) -> Iterable[Page]:
    """Make a page for each cell."""
    matrix = Matrix.of(site)
    order = matrix.order
    for number, key in enumerate(order):
        published = site.cells[key]
        before = site.cells[order[number - 1]] if number else None
        following = site.cells[order[number + 1]] if number + 1 < len(order) else None
        make = partial(_page, site, published, before, following)
        yield notices.shown_or_why(make, partial(not_shown, published.page, " ".join(key)))


def _page(
    site: Site,
    published: Result,
    before: Result | None,
    following: Result | None,
) -> Page:
    guest, variant, build = published.identity
    shown = Shown(published, site.evidence.get(published.identity, CellEvidence()))
    boxlite_words = published.finished.words if shown.files else words.Words()
    return Page(
        published.page,
        title=f"{guest}, {variant}, boxlite {build}",
        template="cell.html",
        values={
            "cell": published.cell,
            "source": published.source,
            "shown": shown,
            "given": protection.given([published.cell]),
            "not_given": protection.not_given([published.cell]),
            "weaknesses": site.weaknesses_of(published.cell),
            "mark": MARKS,
            "table": table,
            "causes": site.causes,
            "known_remedies": site.remedies,
            "variant": site.catalog.variants.get(variant),
            "said": boxlite_words,
            "judged": words.judge(published.cell, boxlite_words, site.remedies),
            "environment": environment(published),
            "digests": digests(published),
            "others": [
                site.cells[key]
                for key in ((guest, variant, other) for other in site.builds)
                if key in site.cells and key != published.identity
            ],
            "elsewhere": [*published.later, *published.older],
            "before": before,
            "following": following,
            "matrix_page": MATRIX_PAGE,
            "page_of_run": page_of_run,
        },
    )


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} …"
