"""Whether a cell fails as another one does: the same tests, for the same cause."""

from collections.abc import Sequence

from lab.record import UNKNOWN, CellResult, Outcome, Status, TestResult
from lab.repro.bisecting import State
from lab.verdict.status import is_fault

# Statuses of cells whose suite ran to its end, with the same result each time.
RAN = (Status.PASS, Status.XPASS, Status.FAIL, Status.XFAIL)


def failing(cell: CellResult) -> list[str]:
    """The tests of a cell that failed, and not because the lab was at fault."""
    return [test.name for test in _judged(cell) if test.outcome.is_failure]


def compare(reported: CellResult, cell: CellResult) -> tuple[State, str]:
    """The state of a cell by the tests that fail in the reported one, and why.

    Good: all of them pass. Bad: all of them fail, for the same cause. Everything else says neither.
    """
    wanted = failing(reported)
    if not wanted:
        return State.SKIPPED, reported.reason or "the reported build shows no failure to compare with"
    passed = [test.name for test in _judged(cell) if test.outcome is Outcome.PASS and test.name in wanted]
    failed = [name for name in failing(cell) if name in wanted]
    if len(passed) == len(wanted):
        return State.GOOD, _rest(cell, failing(cell))
    if not passed and not failed:
        return State.SKIPPED, cell.reason or str(cell.status)
    if len(failed) < len(wanted):
        return State.SKIPPED, f"{len(failed)} of the {len(wanted)} tests fail: {', '.join(failed) or '-'}"
    if _cause(cell) != _cause(reported):
        return State.SKIPPED, f"the same tests fail for another cause: {_cause(cell)}"
    return State.BAD, cell.reason if cell.status in RAN else _rest(cell, [])


def _judged(cell: CellResult) -> Sequence[TestResult]:
    """The tests that say something about boxlite.

    A cell is `error` if a single test met a fault, for example a registry that cannot be reached. What its
    other tests showed holds all the same.
    """
    if cell.status in RAN:
        return cell.tests
    return (
        [test for test in cell.tests if not is_fault(test, cell.reason)] if cell.status is Status.ERROR else ()
    )


def _cause(cell: CellResult) -> str:
    """The first cause that was found. A cell with status `error` has none of its own."""
    return cell.causes[0].name if cell.causes else cell.cause or UNKNOWN


def _rest(cell: CellResult, others: Sequence[str]) -> str:
    """What is to be said of the tests that are not compared."""
    if cell.status not in RAN:
        return f"other tests cannot be judged: {cell.reason}"
    return f"other tests fail: {', '.join(others)}" if others else ""
