"""Cells of a run about which a report says more than their status: those that did the same are one section."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lab.base import notices
from lab.base.files import group_values
from lab.record import (
    CellResult,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunResult,
    Status,
    TrialOutcome,
    strip_kernel,
)
from lab.report import table
from lab.report.table import LEFT_OUT, LOOKS, Column, format_count, label_columns_of

# Returns boxlite's own diagnosis of a cell, if it is not right; empty text if it is, or was not judged.
FindMisdiagnosis = Callable[[CellResult], str]


def sort_remedies(cell: CellResult) -> list[RemedyResult]:
    """Return the remedies tried on a cell: cures first, each group sorted by the protection given up."""
    return sorted(cell.remedies, key=lambda remedy: remedy.result is not RemedyOutcome.VERIFIED)


def format_command(remedy: RemedyResult) -> str:
    """Return the command that shows the remedy, as a script if it changes the host."""
    names = remedy.name.split("+")
    commands = [f"lab remedies show {name}{' --script' if name in remedy.scripts else ''}" for name in names]
    return " and ".join(commands)


@notices.guard_text
def describe_experiment(cell: CellResult) -> str:
    """Say in one line what the experiment on a cell found; empty if there was none."""
    experiment = cell.trials.experiment
    if experiment is None:
        return ""
    single = [trial for trial in experiment.trials if len(trial.changes) == 1]
    outcomes = Counter(trial.outcome for trial in single)
    judged = outcomes[TrialOutcome.PASSES] + outcomes[TrialOutcome.FAILS]
    turning = [" and ".join(changes) for changes in experiment.turning]
    if not judged and not turning:
        finding = "no change was tried"
    elif cell.status is Status.PASS:
        finding = f"it fails {', '.join(turning)}" if turning else "nothing that was tried breaks it"
    else:
        finding = f"what failed passes {turning[0]}" if turning else "nothing that was tried lets it pass"
    counts = {
        "tried alone": judged,
        "cannot be tried": outcomes[TrialOutcome.CANNOT],
        "faults of the lab": outcomes[TrialOutcome.ERROR],
    }
    numbers = [f"{label}: {count}" for label, count in counts.items() if count]
    judges = f"judged by {', '.join(experiment.tests)}"
    return "; ".join(filter(None, [finding, experiment.stopped, *numbers, judges]))


@dataclass(frozen=True)
class FailedTests:
    """Tests that did not pass, with the same outcome and message, and the number of cells that have them."""

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
    """Cells that differ only in their guest, variant and build."""

    cells: list[CellResult]
    headings: dict[Column, str]
    misdiagnosis: str

    @property
    def first(self) -> CellResult:
        """The cell whose status, reason and causes stand for all."""
        return self.cells[0]

    @property
    def title(self) -> str:
        return f"{table.format_square(self.first)}: {self.where}"

    @property
    def where(self) -> str:
        """Name the cell if there is one; else count cells and guests."""
        if len(self.cells) == 1:
            return f"{self.first.guest} {self.heading(self.first)}"
        guests = {strip_kernel(cell.guest) for cell in self.cells}
        return f"{len(self.cells)} cells on {format_count(len(guests), 'guest')}"

    @cached_property
    def by_guest(self) -> dict[str, list[CellResult]]:
        return group_values((cell.guest, cell) for cell in self.cells)

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
        return [FailedTests(*key, list(tests), len(cells[key])) for key, tests in names.items()]

    @cached_property
    def remedies(self) -> list[TriedRemedy]:
        """The remedies that were tried on these cells: cures first, then by the protection given up."""
        remedies = []
        for remedy in sort_remedies(self.first):
            same = [result for cell in self.cells for result in cell.remedies if result.name == remedy.name]
            reasons = dict.fromkeys(result.reason for result in same if result.reason)
            defects = dict.fromkeys(defect for result in same for defect in result.defects)
            remedies.append(TriedRemedy(remedy, list(reasons), list(defects)))
        return remedies

    @property
    def cures(self) -> list[TriedRemedy]:
        return [remedy for remedy in self.remedies if remedy.cures]

    @property
    def other_remedies(self) -> list[TriedRemedy]:
        return [remedy for remedy in self.remedies if not remedy.cures]

    @property
    def commands(self) -> list[str]:
        return [" ".join(cell.rerun.split()) for cell in self.cells if cell.rerun]

    def shells(self, run: str) -> list[str]:
        """Return the command that opens a shell in the first of these cells; none if no test ran there."""
        return [" ".join(self.first.shell(run).split())] if self.first.tests else []

    @property
    def details(self) -> str:
        """Say what is folded, as the heading of the section's details."""
        tests = len({name for failed in self.failed for name in failed.names})
        counts = {"tests that did not pass": tests, "other remedies": len(self.other_remedies)}
        numbers = [f"{label}: {count}" for label, count in counts.items() if count]
        return "; ".join([*numbers, "how to run it again"])


def make_sections(run: RunResult, find_misdiagnosis: FindMisdiagnosis = lambda _: "") -> list[Section]:
    """Group the cells of a run that have something to tell, the unexpected ones first."""
    headings = label_columns_of(run)
    by_key: dict[object, Section] = {}
    for cell in run.cells:
        if _needs_section(cell):
            misdiagnosis = find_misdiagnosis(cell)
            section = Section([], headings, misdiagnosis)
            by_key.setdefault(_key(cell, misdiagnosis), section).cells.append(cell)
    by_status = group_values((section.first.status, section) for section in by_key.values())
    return [section for status in LOOKS for section in by_status.get(status, [])]


def _needs_section(cell: CellResult) -> bool:
    if cell.status in LEFT_OUT:
        return bool(cell.history.retried or cell.trials.experiment)
    return cell.status is not Status.PASS or bool(cell.reason or cell.history.retried or cell.trials.experiment)


def _key(cell: CellResult, misdiagnosis: str) -> object:
    """Return all that cells of one section have in common.

    Messages of tests are left out: the same failure has other words in another release of boxlite.
    """
    return (
        table.format_square(cell),
        cell.verdict.confidence,
        tuple((cause.name, cause.confidence) for cause in cell.causes),
        cell.reason,
        tuple((test.name, test.outcome) for test in cell.tests if test.outcome is not Outcome.PASS),
        tuple((remedy.name, remedy.result) for remedy in cell.remedies),
        describe_experiment(cell),
        tuple(cell.history.retried),
        misdiagnosis,
    )
