"""The page `matrix.html`: the whole matrix as one table, with the builds side by side."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from lab.record import CellResult, Status
from lab.report import protection, table
from lab.site.model import Site
from lab.site.page import Page
from lab.site.results import Identity, Published
from lab.site.users import distributions

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

    published: Published
    differs: bool
    weak: bool

    @property
    def cell(self) -> CellResult:
        return self.published.cell

    @property
    def remark(self) -> str:
        """What the square says beside the status: the cause, or how many repeats passed, and the retries."""
        return table.square(self.cell).removeprefix(str(self.cell.status)).strip()


@dataclass(frozen=True)
class Choice:
    """One value that a filter offers, and how many cells have it."""

    value: str
    label: str
    count: int


@dataclass(frozen=True)
class Matrix:
    """The table: a row per guest; a group of columns per variant, with a column for each of its builds."""

    cells: Mapping[Identity, Published]
    guests: list[str]
    columns: dict[str, list[str]]
    weak: set[int]

    @classmethod
    def of(cls, site: Site) -> "Matrix":
        """Arrange the cells of a site. A column without any cell is left out."""
        found = {(variant, build) for _, variant, build in site.cells}
        columns = {
            variant: [build for build in site.builds if (variant, build) in found] for variant in site.variants
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
        return table.kernel(each.cell for each in self.cells.values() if each.cell.guest == guest)

    @cached_property
    def _differing(self) -> set[tuple[str, str]]:
        outcomes: dict[tuple[str, str], set[tuple[Status, str | None]]] = {}
        for (guest, variant, _), each in self.cells.items():
            if not each.cell.status.could_not_run:
                outcomes.setdefault((guest, variant), set()).add((each.cell.status, each.cell.cause))
        return {place for place, found in outcomes.items() if len(found) > 1}


def outputs(site: Site) -> Iterable[Page]:
    """Make the page of the matrix."""
    matrix = Matrix.of(site)
    yield Page(
        MATRIX_PAGE,
        title="The whole matrix",
        template="matrix.html",
        values={
            "matrix": matrix,
            "variants": site.catalog.variants,
            "host_pages": {guest: each.page for each in distributions.group(site) for guest in each.guests},
            "filters": _filters(matrix),
            "marks": MARKS,
            "meanings": {status: text for status, text in MEANINGS.items() if _has(site, status)},
            "attention": ATTENTION,
        },
        nav="Matrix",
        scripts=("matrix.js",),
    )


def _has(site: Site, status: Status) -> bool:
    return any(each.cell.status is status for each in site.cells.values())


def _filters(matrix: Matrix) -> dict[str, list[Choice]]:
    """Return the filters by their names in the address, each with the values that occur."""
    cells = [each.cell for each in matrix.cells.values()]
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
