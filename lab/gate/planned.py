"""A gate for a run that is still to come: what it needs is read and checked before any guest boots."""

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import UsageError
from lab.gate import expectations, results
from lab.gate.compare import compare
from lab.gate.decision import NO_EXPECTATIONS, Decision, decide
from lab.gate.expectations import Expectations
from lab.gate.results import BuildResults, Identity
from lab.record import RunResult


@dataclass(frozen=True)
class PlannedGate:
    """The gate of a run. `old` are results, or the name of the build of the same run to compare with."""

    old: BuildResults | str
    build: str
    expected: Expectations | None = None

    def check(self, planned: Collection[Identity]) -> None:
        """Raise UsageError if the run will have no cell that the old side has."""
        if isinstance(self.old, BuildResults) and not self.old.cells.keys() & set(planned):
            raise UsageError(
                f"this run and boxlite {self.old.build} ({self.old.source}) have no cell in common",
                hint="gate with a baseline of the same plan: the same --set, or the same guests and variants",
            )

    def decide(self, run: RunResult, folder: Path) -> Decision:
        """Decide over the run. Raises UsageError as `decide` does."""
        old = results.of_run(run, folder, self.old) if isinstance(self.old, str) else self.old
        return decide_with(old, results.of_run(run, folder, self.build), self.expected)


def decide_with(old: BuildResults, new: BuildResults, expected: Expectations | None) -> Decision:
    """Decide over two builds with what is expected today. Raises UsageError as `decide` does."""
    today = datetime.datetime.now(datetime.UTC).date()
    judged = expectations.judge(expected, new, today) if expected else NO_EXPECTATIONS
    return decide(compare(old, new), judged)
