"""The findings of a run as sections: cells that failed for the same cause in the same way are told once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lab.record import CellResult, Outcome, RemedyOutcome, RemedyResult, RunResult, Status
from lab.report import squares

# What a person has to look at comes first.
ORDER = (
    Status.FAIL,
    Status.XPASS,
    Status.FLAKY,
    Status.ERROR,
    Status.NOT_RUN,
    Status.XFAIL,
    Status.PASS,
    Status.NOT_APPLICABLE,
)

# boxlite's own diagnosis of a cell, if it is not right; empty if it is, or was not judged.
Misdiagnosis = Callable[[CellResult], str]


@dataclass(frozen=True)
class FailedTests:
    """Tests that did not pass, with the same outcome and message. `cells`: in how many of the section's."""

    outcome: Outcome
    message: str
    names: list[str]
    cells: int


@dataclass(frozen=True)
class TriedRemedy:
    """A remedy with the same result in every cell of a section."""

    first: RemedyResult
    reasons: list[str]
    defects: list[str]

    @property
    def cures(self) -> bool:
        return self.first.result is RemedyOutcome.VERIFIED


@dataclass(frozen=True)
class Section:
    """Cells of which all is the same but the guest, the variant and the build."""

    cells: list[CellResult]
    headings: dict[squares.Column, str]
    misdiagnosis: str

    @property
    def first(self) -> CellResult:
        """The cell whose status, reason and causes stand for all."""
        return self.cells[0]

    @property
    def title(self) -> str:
        """The square of these cells, and the cell or the number of cells."""
        return f"{squares.square(self.first)}: {self.where}"

    @property
    def where(self) -> str:
        """Name the cell if there is one; else count cells and guests."""
        if len(self.cells) == 1:
            return f"{self.first.guest} {self.heading(self.first)}"
        guests = len(self.by_guest)
        return f"{len(self.cells)} cells on {guests} guest{'s' if guests != 1 else ''}"

    @cached_property
    def by_guest(self) -> dict[str, list[CellResult]]:
        found: dict[str, list[CellResult]] = {}
        for cell in self.cells:
            found.setdefault(cell.guest, []).append(cell)
        return found

    def heading(self, cell: CellResult) -> str:
        """Return the heading of the cell's column: its variant, and its build if the run has several."""
        return self.headings[cell.variant, cell.build]

    @cached_property
    def failed(self) -> list[FailedTests]:
        """The tests that did not pass: those with the same outcome and message together."""
        names: dict[tuple[Outcome, str], dict[str, None]] = {}
        cells: dict[tuple[Outcome, str], set[int]] = {}
        for number, cell in enumerate(self.cells):
            for test in cell.tests:
                if test.outcome is not Outcome.PASS:
                    key = (test.outcome, test.message)
                    names.setdefault(key, {})[test.name] = None
                    cells.setdefault(key, set()).add(number)
        return [FailedTests(*key, list(found), len(cells[key])) for key, found in names.items()]

    @cached_property
    def remedies(self) -> list[TriedRemedy]:
        """The remedies that were tried on these cells: cures first, then by the protection given up."""
        return [self._tried(remedy) for remedy in squares.remedies(self.first)]

    @property
    def cures(self) -> list[TriedRemedy]:
        return [tried for tried in self.remedies if tried.cures]

    @property
    def others(self) -> list[TriedRemedy]:
        """The remedies that were tried and cure nothing."""
        return [tried for tried in self.remedies if not tried.cures]

    @property
    def commands(self) -> list[str]:
        """The commands that run these cells again, each on a line of its own."""
        return [" ".join(cell.rerun.split()) for cell in self.cells if cell.rerun]

    def shells(self, run: str) -> list[str]:
        """Return the command that opens a shell in the first of these cells; none if no test ran there."""
        return [" ".join(self.first.shell(run).split())] if self.first.tests else []

    @property
    def details(self) -> str:
        """Say what is folded, as the heading of the section's details."""
        tests = len({name for failed in self.failed for name in failed.names})
        counts = {"tests that did not pass": tests, "other remedies": len(self.others)}
        counted = [f"{what}: {count}" for what, count in counts.items() if count]
        return "; ".join([*counted, "how to run it again"])

    def _tried(self, remedy: RemedyResult) -> TriedRemedy:
        same = [each for cell in self.cells for each in cell.remedies if each.name == remedy.name]
        reasons = dict.fromkeys(each.reason for each in same if each.reason)
        defects = dict.fromkeys(defect for each in same for defect in each.defects)
        return TriedRemedy(remedy, list(reasons), list(defects))


def sections(run: RunResult, misdiagnosis: Misdiagnosis = lambda _: "") -> list[Section]:
    """Group the cells of a run that have something to tell, the unexpected ones first."""
    headings = squares.columns_of(run)
    found: dict[object, Section] = {}
    for cell in run.cells:
        if _tells(cell):
            said = misdiagnosis(cell)
            found.setdefault(_key(cell, said), Section([], headings, said)).cells.append(cell)
    return sorted(found.values(), key=lambda section: ORDER.index(section.first.status))


def _tells(cell: CellResult) -> bool:
    left_out = cell.status in squares.LEFT_OUT
    failed = cell.status is not Status.PASS and not left_out
    return failed or bool((cell.reason and not left_out) or cell.retried or cell.experiment)


def _key(cell: CellResult, misdiagnosis: str) -> object:
    """Return all that cells of one section have in common.

    Messages of tests are left out: the same failure has other words in another release of boxlite.
    """
    return (
        squares.square(cell),
        cell.confidence,
        tuple((found.name, found.confidence) for found in cell.causes),
        cell.reason,
        tuple((test.name, test.outcome) for test in cell.tests if test.outcome is not Outcome.PASS),
        tuple((tried.name, tried.result) for tried in cell.remedies),
        squares.experiment(cell),
        tuple(cell.retried),
        misdiagnosis,
    )
