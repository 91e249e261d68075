"""The gate's decision over a comparison: may this build be released?"""

import datetime
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import Field, computed_field

from lab.base.errors import UsageError
from lab.gate import expectations, results
from lab.gate.compare import CellDifference, Comparison, Difference, compare_builds
from lab.gate.expectations import Expectations, ExpectedFailure
from lab.gate.results import BuildResults
from lab.record import Entry, RunResult

# What an expectation excuses: failures. A result that is missing or a pass is none.
EXCUSED = (Difference.REGRESSED, Difference.CAUSE_CHANGED)


class Gate(StrEnum):
    """What the gate says of a build."""

    PASSED = "passed"
    BLOCKED = "blocked"
    INCOMPLETE = "incomplete"  # nothing is worse as far as it was run, but some cells could not be run


class KnownFailure(Entry):
    """A cell that failed as an expectation says."""

    cell: CellDifference
    expected: ExpectedFailure


class Decision(Entry):
    """The gate's decision, with everything that it rests on."""

    comparison: Comparison
    blocking: list[CellDifference] = Field(description="The cells that hold the release back, the worst first.")
    expectations_at_fault: list[str] = Field(
        default_factory=list,
        description="Expectations that have expired, match nothing, or whose cells pass. They block, too.",
    )
    known: list[KnownFailure] = Field(
        default_factory=list, description="The cells that failed as an expectation says."
    )
    could_not_run: list[CellDifference] = Field(description="The cells without a result.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gate(self) -> Gate:
        if self.blocking or self.expectations_at_fault:
            return Gate.BLOCKED
        return Gate.INCOMPLETE if self.could_not_run or not self.comparison.compared else Gate.PASSED

    @property
    def exit_status(self) -> int:
        return {Gate.PASSED: 0, Gate.BLOCKED: 1, Gate.INCOMPLETE: 3}[self.gate]


def decide_gate(old: BuildResults, new: BuildResults, expected: Expectations | None = None) -> Decision:
    """Decide over two builds with what is expected today.

    Raises UsageError if the two sides have no cell in common.
    """
    comparison = compare_builds(old, new)
    # A cell that could not be run may be one that another shard of the new side's plan has.
    missing = Difference.COULD_NOT_RUN
    if not any((cell.old and cell.new) or cell.difference is missing for cell in comparison.cells):
        raise UsageError(
            f"{comparison.new} and {comparison.old} have no cell in common, so there is nothing to compare",
            hint="compare runs of the same plan: the same --set, or the same guests and variants",
        )
    today = datetime.datetime.now(datetime.UTC).date()
    covered, problems = expectations.judge_failures(expected, new, today) if expected else ({}, [])
    return Decision(
        comparison=comparison,
        blocking=[
            cell
            for cell in comparison.of(*(kind for kind in Difference if kind.blocks))
            # A failure that is known excuses no protection that other boxes of the cell lost.
            if cell.difference not in EXCUSED or cell.protection or (cell.guest, cell.variant) not in covered
        ],
        expectations_at_fault=problems,
        known=[
            KnownFailure(cell=cell, expected=covered[cell.guest, cell.variant])
            for cell in comparison.cells
            if (cell.guest, cell.variant) in covered
        ],
        could_not_run=comparison.of(Difference.COULD_NOT_RUN),
    )


@dataclass(frozen=True)
class PlannedGate:
    """The gate of a run. `old` are results, or the name of the build of the same run to compare with."""

    old: BuildResults | str
    build: str
    expected: Expectations | None = None

    def decide(self, run: RunResult, folder: Path) -> Decision:
        old = results.reduce_run(run, folder, self.old) if isinstance(self.old, str) else self.old
        return decide_gate(old, results.reduce_run(run, folder, self.build), self.expected)
