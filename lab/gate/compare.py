"""Compares the results of two builds cell by cell. Cells are matched by guest and variant, never counted."""

import shlex
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from lab.base.files import group_values
from lab.base.ordered import OrderedEnum
from lab.gate.results import BuildResults, CellSummary, EnvironmentChange, Identity, compare_environments
from lab.record import Entry, Outcome, Status
from lab.verdict.protection import find_losses


class Difference(OrderedEnum):
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
        return self.rank <= Difference.UNEXPECTED_PASS.rank


class CellOnSide(Entry):
    """What a cell did on one side."""

    status: Status
    cause: str | None = None
    kept: str = Field(
        default="",
        description="The earlier run that the result was taken over from; empty: its own run ran it.",
    )

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
    old: CellOnSide | None = Field(description="None: that side does not have the cell.")
    new: CellOnSide | None = Field(description="None: that side does not have the cell.")
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
        return [cell for difference in differences for cell in self.cells if cell.difference is difference]

    @property
    def counts(self) -> str:
        """Count the cells by difference: `1 regressed, 14 unchanged`."""
        counts = Counter(cell.difference for cell in self.cells)
        return ", ".join(f"{counts[kind]} {kind}" for kind in Difference if counts[kind])

    @property
    def compared(self) -> int:
        """The number of cells that have a result on both sides."""
        return sum(_has_result(cell.old) and _has_result(cell.new) for cell in self.cells)


def _has_result(cell: CellOnSide | CellSummary | None) -> bool:
    return cell is not None and not cell.status.could_not_run and cell.status is not Status.NOT_APPLICABLE


def both_builds(cells: Sequence[Identity], old: BuildResults, new: BuildResults) -> str:
    """Return the command line that runs these cells with both builds; empty without cells or a second build."""
    if not cells or old.build == new.build:
        return ""
    words = ["lab", "matrix"]
    for option, names in zip(("-g", "-v"), zip(*cells, strict=True), strict=True):
        words += [word for name in dict.fromkeys(names) for word in (option, name)]
    for side in (old, new):
        # A baseline holds no paths, so a local wheel has to be named by the reader.
        words += ["--build", side.argument or f"WHEEL-OF-{side.build}"]
    return shlex.join(words)


LOST = (None, Outcome.SKIP, Outcome.NOT_RUN)
IN_ANOTHER_SHARD = "another shard of the plan has one of its results; merge the shards first"


def compare_builds(old: BuildResults, new: BuildResults) -> Comparison:
    """Compare two builds: every cell of the new side, then the cells that only the old side has."""
    identities = [*new.cells, *(identity for identity in old.cells if identity not in new.cells)]
    cells = [_compare_cell(old, new, *identity) for identity in identities]
    touched = [(cell.guest, cell.variant) for cell in cells if cell.environment]
    sides = [
        Side(source=side.source, build=side.build, version=side.version, folder=str(side.folder or ""))
        for side in (old, new)
    ]
    return Comparison(old=sides[0], new=sides[1], cells=cells, both_builds=both_builds(touched, old, new))


def _compare_cell(old_build: BuildResults, new_build: BuildResults, guest: str, variant: str) -> CellDifference:
    old, new = old_build.cells.get((guest, variant)), new_build.cells.get((guest, variant))
    tests: list[TestChange] = []
    weaker: list[str] = []
    changes: list[EnvironmentChange] = []
    if old and new:
        tests, weaker = _tests(old, new), _protection(old, new)
        if not old.status.could_not_run and not new.status.could_not_run:
            changes = compare_environments(old.environment, new.environment)
            changes += compare_environments(old_build.definitions_of(new), new_build.definitions_of(new))
    if (guest, variant) in new_build.elsewhere or (old is None and (guest, variant) in old_build.elsewhere):
        difference, reason = Difference.COULD_NOT_RUN, IN_ANOTHER_SHARD
    else:
        difference, reason = _difference(old, new, tests)
    if weaker and not difference.blocks:
        difference, reason = Difference.LESS_PROTECTED, "its boxes work, and are less protected than before"
    if difference is Difference.UNCHANGED and changes:
        difference = Difference.ENVIRONMENT_CHANGED
    return CellDifference(
        guest=guest,
        variant=variant,
        difference=difference,
        reason=reason,
        old=CellOnSide(status=old.status, cause=old.cause, kept=old.kept) if old else None,
        new=CellOnSide(status=new.status, cause=new.cause, kept=new.kept) if new else None,
        tests=tests,
        protection=weaker,
        environment=changes,
        evidence=str(new.evidence) if new and new.evidence else "",
        rerun=new.rerun if new else "",
        both_builds=both_builds([(guest, variant)], old_build, new_build) if changes else "",
    )


def _difference(
    old: CellSummary | None, new: CellSummary | None, tests: list[TestChange]
) -> tuple[Difference, str]:
    """Judge a cell by what it did on both sides, and say why."""
    if new is None and _has_result(old):
        return Difference.VANISHED, "this run was not asked for it"
    if new is None:
        # There was no result that could be lost.
        return Difference.UNCHANGED, "had no result, and this run was not asked for it"
    if new.status.could_not_run:
        return Difference.COULD_NOT_RUN, new.reason
    if new.status is Status.NOT_APPLICABLE and _has_result(old):
        return Difference.VANISHED, f"it does not apply any more: {new.reason}".rstrip(": ")
    if new.status is Status.NOT_APPLICABLE:
        return Difference.UNCHANGED, new.reason
    if old is None:
        return Difference.NEW, new.reason
    if not _has_result(old):
        return Difference.NEW, f"no result before ({old.status})"
    match old.status, new.status:
        case Status.FLAKY, Status.FLAKY:
            return Difference.UNCHANGED, new.reason
        case _, Status.FLAKY:
            return Difference.NEWLY_FLAKY, new.reason
        case Status.XPASS, Status.XPASS:
            return _by_tests(old, new, tests)
        case _, Status.XPASS:
            return Difference.UNEXPECTED_PASS, new.reason
        case ((Status.PASS | Status.XPASS), Status.PASS):
            return _by_tests(old, new, tests)
        case Status.FLAKY, Status.FAIL:
            return Difference.REGRESSED, new.reason
        case ((Status.FLAKY | Status.FAIL | Status.XFAIL), Status.PASS):
            return Difference.FIXED, ""
        case ((Status.FLAKY | Status.XPASS), Status.XFAIL):
            return Difference.FIXED, "it fails as expected again"
        case ((Status.PASS | Status.XPASS), _):
            return Difference.REGRESSED, new.reason
    if old.cause != new.cause:
        return Difference.CAUSE_CHANGED, new.reason
    return _by_tests(old, new, tests)


def _by_tests(old: CellSummary, new: CellSummary, tests: list[TestChange]) -> tuple[Difference, str]:
    """Judge a cell that does the same as before by the outcomes of its tests."""
    # New tests of a cell that fails as expected failed as they must.
    judged = [test for test in tests if test.old is not None or new.status is Status.FAIL]
    if any(test.old in (Outcome.PASS, None) and test.new not in (Outcome.PASS, None) for test in judged):
        return Difference.REGRESSED, "tests fail that did not fail before"
    if any(test.old not in LOST and test.new in LOST for test in tests):
        return Difference.VANISHED, "tests ran before that do not run now"
    if any(test.old not in (None, Outcome.PASS) and test.new is Outcome.PASS for test in tests):
        if old.status is Status.XFAIL and new.status is Status.FAIL:
            return Difference.UNEXPECTED_PASS, "tests pass that the cause must fail"
        return Difference.FIXED, "tests pass that did not pass before"
    return (Difference.TESTS_CHANGED, "") if tests else (Difference.UNCHANGED, new.reason)


def _tests(old: CellSummary, new: CellSummary) -> list[TestChange]:
    if not old.tests or not new.tests:
        return []
    names = dict.fromkeys([*new.tests, *old.tests])
    pairs = [TestChange(name=name, old=old.tests.get(name), new=new.tests.get(name)) for name in names]
    return [pair for pair in pairs if pair.old is not pair.new]


def _protection(old: CellSummary, new: CellSummary) -> list[str]:
    """Say what boxes of the same test lack that they had before, tests with the same loss together."""
    losses = group_values(
        (lacking, test)
        for test, had in old.protection.items()
        if test in new.protection and (lacking := find_losses(had, new.protection[test]))
    )
    return [f"the box of {', '.join(tests)} lacks {', '.join(lacking)}" for lacking, tests in losses.items()]
