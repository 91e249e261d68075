"""The gate's decision over a comparison: may this build be released?"""

from collections.abc import Callable
from enum import StrEnum

from pydantic import Field, computed_field

from lab.base.errors import UsageError
from lab.gate.compare import CellDifference, Comparison, Difference
from lab.record import Entry


class Gate(StrEnum):
    """What the gate says of a build."""

    PASSED = "passed"
    BLOCKED = "blocked"
    INCOMPLETE = "incomplete"  # nothing is worse as far as it was run, but some cells could not be run

    @property
    def exit_status(self) -> int:
        return {Gate.PASSED: 0, Gate.BLOCKED: 1, Gate.INCOMPLETE: 3}[self]


class Decision(Entry):
    """The gate's decision, with everything that it rests on."""

    comparison: Comparison
    blocking: list[CellDifference] = Field(description="The cells that hold the release back, the worst first.")
    could_not_run: list[CellDifference] = Field(description="The cells without a result.")
    other_plan: list[str] = Field(
        default_factory=list,
        description="Guests and variants of the old side that the run has no cell of at all.",
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gate(self) -> Gate:
        """What the gate says."""
        if self.blocking:
            return Gate.BLOCKED
        return Gate.INCOMPLETE if self.could_not_run or not self.comparison.compared else Gate.PASSED

    @property
    def exit_status(self) -> int:
        return self.gate.exit_status


def decide(comparison: Comparison) -> Decision:
    """Decide over a comparison. Raises UsageError if the two sides have no cell in common."""
    if not comparison.in_common:
        raise UsageError(
            f"{comparison.new} and {comparison.old} have no cell in common, so there is nothing to compare",
            hint="compare runs of the same plan: the same --set, or the same guests and variants",
        )
    return Decision(
        comparison=comparison,
        blocking=comparison.of(*(each for each in Difference if each.blocks)),
        could_not_run=comparison.of(Difference.COULD_NOT_RUN),
        other_plan=_other_plan(comparison),
    )


def _other_plan(comparison: Comparison) -> list[str]:
    """Name the guests and variants of the old side of which the new side was asked for no cell."""

    def lost(kind: str, key: Callable[[CellDifference], str]) -> list[str]:
        asked = {
            key(cell) for cell in comparison.cells if cell.new or cell.difference is Difference.COULD_NOT_RUN
        }
        vanished = dict.fromkeys(key(cell) for cell in comparison.of(Difference.VANISHED))
        return [f"{kind} {name}" for name in vanished if name not in asked]

    return lost("guest", lambda cell: cell.guest) + lost("variant", lambda cell: cell.variant)
