"""Compares the results of two builds cell by cell. Cells are matched by guest and variant, never counted."""

from collections.abc import Mapping

from lab.gate import environment
from lab.gate.differences import CellDifference, Comparison, Difference, Seen, Side, TestChange
from lab.gate.environment import EnvironmentChange
from lab.gate.pair_command import both_builds
from lab.gate.results import BuildResults, CellSummary
from lab.record import Outcome, Status
from lab.verdict.protection import lost

LOST = (None, Outcome.SKIP, Outcome.NOT_RUN)
IN_ANOTHER_SHARD = "another shard of the plan has one of its results; merge the shards first"


def compare(old: BuildResults, new: BuildResults) -> Comparison:
    """Compare two builds: every cell of the new side, then the cells that only the old side has."""
    identities = [*new.cells, *(each for each in old.cells if each not in new.cells)]
    cells = [_cell(old, new, *identity) for identity in identities]
    touched = [(cell.guest, cell.variant) for cell in cells if cell.environment]
    return Comparison(
        old=_side(old),
        new=_side(new),
        cells=cells,
        both_builds=both_builds(touched, old, new),
    )


def _side(results: BuildResults) -> Side:
    folder = str(results.folder) if results.folder else ""
    return Side(source=results.source, build=results.build, version=results.version, folder=folder)


def _cell(old: BuildResults, new: BuildResults, guest: str, variant: str) -> CellDifference:
    before, now = old.cells.get((guest, variant)), new.cells.get((guest, variant))
    tests = _tests(before, now)
    changed = _environment(old, new, before, now)
    if (guest, variant) in new.elsewhere or (before is None and (guest, variant) in old.elsewhere):
        difference, reason = Difference.COULD_NOT_RUN, IN_ANOTHER_SHARD
    elif now is None:
        difference, reason = _missing(before)
    else:
        difference, reason = _difference(before, now, tests)
    weaker = _protection(before, now)
    if weaker and not difference.blocks:
        difference, reason = Difference.LESS_PROTECTED, "its boxes work, and are less protected than before"
    if difference is Difference.UNCHANGED and changed:
        difference = Difference.ENVIRONMENT_CHANGED
    return CellDifference(
        guest=guest,
        variant=variant,
        difference=difference,
        reason=reason,
        old=Seen(status=before.status, cause=before.cause) if before else None,
        new=Seen(status=now.status, cause=now.cause) if now else None,
        tests=tests,
        protection=weaker,
        environment=changed,
        evidence=str(now.evidence) if now and now.evidence else "",
        rerun=now.rerun if now else "",
        both_builds=both_builds([(guest, variant)], old, new) if changed else "",
    )


def _missing(before: CellSummary | None) -> tuple[Difference, str]:
    """Judge a cell that the new side does not have."""
    if before is None or before.status.could_not_run or before.status is Status.NOT_APPLICABLE:
        # There was no result that could be lost.
        return Difference.UNCHANGED, "had no result, and this run was not asked for it"
    return Difference.VANISHED, "this run was not asked for it"


def _difference(
    before: CellSummary | None, now: CellSummary, tests: list[TestChange]
) -> tuple[Difference, str]:
    """Judge a cell that the new side has."""
    if now.status.could_not_run:
        return Difference.COULD_NOT_RUN, now.reason
    if now.status is Status.NOT_APPLICABLE:
        if before is None or before.status is Status.NOT_APPLICABLE or before.status.could_not_run:
            return Difference.UNCHANGED, now.reason
        return Difference.VANISHED, f"it does not apply any more: {now.reason}".rstrip(": ")
    if before is None:
        return Difference.NEW, now.reason
    if before.status.could_not_run or before.status is Status.NOT_APPLICABLE:
        return Difference.NEW, f"no result before ({before.status})"
    return _ran_twice(before, now, tests)


def _ran_twice(before: CellSummary, now: CellSummary, tests: list[TestChange]) -> tuple[Difference, str]:
    """Judge a cell that has a result on both sides."""
    match before.status, now.status:
        case Status.FLAKY, Status.FLAKY:
            return Difference.UNCHANGED, now.reason
        case _, Status.FLAKY:
            return Difference.NEWLY_FLAKY, now.reason
        case Status.XPASS, Status.XPASS:
            return _by_tests(before, now, tests)
        case _, Status.XPASS:
            return Difference.UNEXPECTED_PASS, now.reason
        case ((Status.PASS | Status.XPASS), Status.PASS):
            return _by_tests(before, now, tests)
        case Status.FLAKY, Status.FAIL:
            return Difference.REGRESSED, now.reason
        case ((Status.FLAKY | Status.FAIL | Status.XFAIL), Status.PASS):
            return Difference.FIXED, ""
        case ((Status.FLAKY | Status.XPASS), Status.XFAIL):
            return Difference.FIXED, "it fails as expected again"
        case ((Status.PASS | Status.XPASS), _):
            return Difference.REGRESSED, now.reason
    if before.cause != now.cause:
        return Difference.CAUSE_CHANGED, now.reason
    return _by_tests(before, now, tests)


def _by_tests(before: CellSummary, now: CellSummary, tests: list[TestChange]) -> tuple[Difference, str]:
    """Judge a cell that does the same as before by the outcomes of its tests."""
    # New tests of a cell that fails as expected failed as they must.
    asked = [test for test in tests if test.old is not None or now.status is Status.FAIL]
    if any(test.old in (Outcome.PASS, None) and test.new not in (Outcome.PASS, None) for test in asked):
        return Difference.REGRESSED, "tests fail that did not fail before"
    if any(test.old not in LOST and test.new in LOST for test in tests):
        return Difference.VANISHED, "tests ran before that do not run now"
    if any(test.old not in (None, Outcome.PASS) and test.new is Outcome.PASS for test in tests):
        if before.status is Status.XFAIL and now.status is Status.FAIL:
            return Difference.UNEXPECTED_PASS, "tests pass that the cause must fail"
        return Difference.FIXED, "tests pass that did not pass before"
    return (Difference.TESTS_CHANGED, "") if tests else (Difference.UNCHANGED, now.reason)


def _tests(before: CellSummary | None, now: CellSummary | None) -> list[TestChange]:
    if before is None or now is None or not before.tests or not now.tests:
        return []
    names = dict.fromkeys([*now.tests, *before.tests])
    pairs = [TestChange(name=name, old=before.tests.get(name), new=now.tests.get(name)) for name in names]
    return [pair for pair in pairs if pair.old is not pair.new]


def _protection(before: CellSummary | None, now: CellSummary | None) -> list[str]:
    """Say what boxes of the same test lack that they had before, tests with the same loss together."""
    if before is None or now is None:
        return []
    found: dict[tuple[str, ...], list[str]] = {}
    for test, had in before.protection.items():
        if test in now.protection and (lacking := lost(had, now.protection[test])):
            found.setdefault(lacking, []).append(test)
    return [f"the box of {', '.join(tests)} lacks {', '.join(lacking)}" for lacking, tests in found.items()]


def _environment(
    old: BuildResults, new: BuildResults, before: CellSummary | None, now: CellSummary | None
) -> list[EnvironmentChange]:
    """Return what changed under a cell that has a result on both sides."""
    if before is None or now is None or before.status.could_not_run or now.status.could_not_run:
        return []

    def definitions(side: BuildResults) -> Mapping[str, str]:
        names = environment.concerning(side.definitions, now.guest, now.variant)
        return {name: side.definitions[name] for name in names}

    found = environment.changes(before.environment, now.environment)
    return found + environment.changes(definitions(old), definitions(new))
