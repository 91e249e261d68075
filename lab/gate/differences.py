"""How cells differ between two builds: the models of a comparison."""

from collections import Counter
from enum import StrEnum

from pydantic import Field

from lab.gate.environment import EnvironmentChange
from lab.record import Entry, Outcome, Status


class Difference(StrEnum):
    """How a cell differs from what it did before, the worst first."""

    REGRESSED = "regressed"
    CAUSE_CHANGED = "cause changed"
    LESS_PROTECTED = "less protected"
    NEWLY_FLAKY = "newly flaky"
    VANISHED = "vanished"
    UNEXPECTED_PASS = "unexpected pass"
    COULD_NOT_RUN = "could not run"
    FIXED = "fixed"
    NEW = "new"
    TESTS_CHANGED = "tests changed"
    ENVIRONMENT_CHANGED = "environment changed"
    UNCHANGED = "unchanged"

    @property
    def blocks(self) -> bool:
        """Whether a release is held back by it."""
        return list(Difference).index(self) <= list(Difference).index(Difference.UNEXPECTED_PASS)


class Seen(Entry):
    """What a cell did on one side."""

    status: Status
    cause: str | None = None

    @property
    def has_result(self) -> bool:
        return not self.status.could_not_run and self.status is not Status.NOT_APPLICABLE

    def __str__(self) -> str:
        return " ".join(filter(None, [self.status, self.cause]))


class TestChange(Entry):
    """A test whose outcome changed. None: that side does not have the test."""

    __test__ = False

    name: str
    old: Outcome | None
    new: Outcome | None

    def __str__(self) -> str:
        return f"{self.name}: {self.old or 'not in the suite'} -> {self.new or 'not in the suite'}"


class CellDifference(Entry):
    """One cell on both sides."""

    guest: str
    variant: str
    difference: Difference
    reason: str = ""
    old: Seen | None = Field(description="None: that side does not have the cell.")
    new: Seen | None = Field(description="None: that side does not have the cell.")
    tests: list[TestChange] = Field(default_factory=list, description="Tests whose outcome changed.")
    protection: list[str] = Field(
        default_factory=list, description="What boxes that work on both sides lack on the new side."
    )
    environment: list[EnvironmentChange] = Field(default_factory=list)
    evidence: str = Field(default="", description="The folder of the new side's evidence.")
    rerun: str = Field(default="", description="The command that runs the new side's cell again.")
    both_builds: str = Field(
        default="",
        description="The command that runs both builds on the same guest, if the environment changed.",
    )

    @property
    def name(self) -> str:
        return f"{self.guest} {self.variant}"

    @property
    def has_both_results(self) -> bool:
        return all(seen is not None and seen.has_result for seen in (self.old, self.new))


class Side(Entry):
    """One of the two sides: a build, and where its results are from."""

    source: str
    build: str
    version: str
    folder: str = Field(default="", description="The folder of the run; empty for a baseline.")

    def __str__(self) -> str:
        return f"{self.build} ({self.source})"


class Comparison(Entry):
    """Two builds compared."""

    old: Side
    new: Side
    cells: list[CellDifference]
    both_builds: str = Field(
        default="",
        description="The command that runs both builds on the same guests, for every cell whose environment "
        "changed.",
    )

    def of(self, *differences: Difference) -> list[CellDifference]:
        """Return the cells with these differences, the worst difference first."""
        return [cell for each in differences for cell in self.cells if cell.difference is each]

    @property
    def counts(self) -> str:
        """Count the cells by difference: `1 regressed, 14 unchanged`."""
        found = Counter(cell.difference for cell in self.cells)
        return ", ".join(f"{found[each]} {each}" for each in Difference if found[each])

    @property
    def environment_changes(self) -> dict[str, list[CellDifference]]:
        """Map each change of environment, as text, to the cells that it touches."""
        found: dict[str, list[CellDifference]] = {}
        for cell in self.cells:
            for change in cell.environment:
                found.setdefault(str(change), []).append(cell)
        return found

    @property
    def in_common(self) -> bool:
        """Whether there is a cell that both sides have, or that another shard of the new side's plan has."""
        return any(
            (cell.old is not None and cell.new is not None) or cell.difference is Difference.COULD_NOT_RUN
            for cell in self.cells
        )

    @property
    def compared(self) -> int:
        """The number of cells that have a result on both sides."""
        return sum(cell.has_both_results for cell in self.cells)
