"""Whether a cell fails as another one does: the same tests, for the same cause."""

from lab.record import UNKNOWN, CellResult, Outcome, Status
from lab.repro.bisecting import State

# Statuses of cells whose suite ran, with the same result each time.
RAN = (Status.PASS, Status.XPASS, Status.FAIL, Status.XFAIL)


def failing(cell: CellResult) -> list[str]:
    """The tests of a cell that ran and failed."""
    return [test.name for test in cell.tests if test.outcome.is_failure]


def compare(reported: CellResult, cell: CellResult) -> tuple[State, str]:
    """The state of a cell by the tests that fail in the reported one, and why.

    Good: all of them pass. Bad: all of them fail, for the same cause. Everything else says neither.
    """
    if cell.status not in RAN:
        return State.SKIPPED, cell.reason or str(cell.status)
    tests = failing(reported) if reported.status in RAN else []
    if not tests:
        return State.SKIPPED, "the reported build shows no failure to compare with"
    passed = [test.name for test in cell.tests if test.outcome is Outcome.PASS and test.name in tests]
    failed = [name for name in failing(cell) if name in tests]
    if len(passed) == len(tests):
        others = failing(cell)
        return State.GOOD, f"other tests fail: {', '.join(others)}" if others else ""
    if len(failed) < len(tests):
        return State.SKIPPED, f"{len(failed)} of the {len(tests)} tests fail: {', '.join(failed) or '-'}"
    if cell.cause != reported.cause:
        return State.SKIPPED, f"the same tests fail for another cause: {cell.cause or UNKNOWN}"
    return State.BAD, cell.reason
