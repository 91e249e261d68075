"""A run as JUnit XML, for the test reports of CI systems.

Each cell is a suite. Its class name is `GUEST.VARIANT`, so that Jenkins sorts the cells by guest, and has the
build in front only if the run has several: a CI system finds a test of an earlier run again by these names. A
suite has a test case for each test and one, named `cell`, for the status of the cell as a whole, so that a cell
without tests is in the report as well.

A test that failed as expected is `skipped`, as pytest reports it: it did not fail the run, and it is no pass
either. What the lab could not run is an `error`, never a pass and never a `failure`.
"""

from functools import partial
from io import BytesIO
from math import isfinite

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from junitparser.junitparser import FinalResult

from lab.base import notices
from lab.base.files import clean_text, cut_text, join_lines
from lab.record import CellResult, Outcome, RunResult, Status, TestResult
from lab.report import table

# The name of the test case for a cell's status.
CELL = "cell"
# Longest message and longest text of a result, and the longest name or property, in characters.
LONGEST_MESSAGE, LONGEST_TEXT, LONGEST_NAME = 300, 20_000, 500
_name = partial(join_lines, most=LONGEST_NAME)


def render_junit(run: RunResult) -> str:
    several = len({cell.build for cell in run.cells}) > 1
    suites = [
        notices.show_or_explain(partial(_suite, run, cell, several=several), partial(_not_shown, cell))
        for cell in run.cells
    ]
    report = JUnitXml("boxlite's jailer")
    for suite in suites:
        # `add_testsuite` would compare each suite with all before it, to join those that are equal. None are.
        report.append(suite)  # type: ignore[no-untyped-call]
    report.tests, report.failures, report.errors = (
        sum(getattr(suite, count) for suite in suites) for count in ("tests", "failures", "errors")
    )
    report.time = round(sum((suite.time for suite in suites), 0.0), 3)
    written = BytesIO()
    report.write(written)
    return written.getvalue().decode() + "\n"


def _suite(run: RunResult, cell: CellResult, *, several: bool) -> TestSuite:
    suite = TestSuite(_name(table.name_cell(cell)))
    kept = cell.history.kept
    suite.timestamp = (kept.began if kept else run.run.started).isoformat(timespec="seconds")
    properties = {
        "guest": cell.guest,
        "variant": cell.variant,
        "build": cell.build,
        "kernel": table.format_kernel([cell]),
        "status": str(cell.status),
        "cause": cell.cause or "",
        "evidence": str(cell.folder) if cell.evidence else "",
        "load": ", ".join(cell.suite.stress),
        "rerun": cell.rerun,
        "kept from": str(kept or ""),
        "prediction": str(cell.prediction or ""),
    }
    for name, value in properties.items():
        if value:
            suite.add_property(name, _name(value))
    owner = _name(f"{cell.build}.{cell.guest}.{cell.variant}" if several else f"{cell.guest}.{cell.variant}")
    cases = [TestCase(CELL, owner, 0.0)]
    if result := _of_cell(cell):
        cases[0].result = result
    for test in cell.tests:
        seconds = round(test.seconds, 3) if isfinite(test.seconds) and test.seconds > 0 else 0.0
        case = TestCase(_name(test.name), owner, seconds)
        if result := _of_test(cell, test):
            case.result = result
        cases.append(case)
    suite.add_testcases(cases)
    return suite


def _not_shown(cell: CellResult, reason: str) -> TestSuite:
    name = _name(table.name_cell(cell))
    suite, case = TestSuite(name), TestCase(CELL, name, 0.0)
    case.result = _result(Error, "fault of the lab", reason)
    suite.add_testcases([case])
    return suite


def _of_cell(cell: CellResult) -> FinalResult | None:
    explanation = ": ".join(filter(None, [cell.cause, cell.reason]))
    match cell.status:
        case Status.PASS:
            return None
        case Status.XFAIL:
            return _result(Skipped, "expected failure", explanation, label=True)
        case Status.NOT_APPLICABLE:
            return _result(Skipped, "not applicable", cell.reason, label=True)
        case Status.ERROR | Status.NOT_RUN:
            return _result(Error, str(cell.status), cell.reason or "the cell has no result")
        case Status.FAIL | Status.XPASS | Status.FLAKY:
            return _result(Failure, str(cell.status), explanation)


def _of_test(cell: CellResult, test: TestResult) -> FinalResult | None:
    if test.outcome is Outcome.PASS:
        return None
    if test.outcome is Outcome.SKIP:
        return _result(Skipped, "skip", test.message)
    if test.outcome is Outcome.NOT_RUN:
        return _result(Error, "not-run", test.message or "the test did not run")
    if cell.status is Status.XFAIL:
        return _result(Skipped, "expected failure", test.message, label=True)
    if cell.status.could_not_run:
        return _result(Error, "fault of the lab", f"{cell.reason}\n{test.message}")
    return _result(Failure if test.outcome is Outcome.FAIL else Error, str(test.outcome), test.message)


def _result(kind: type[FinalResult], name: str, text: str, *, label: bool = False) -> FinalResult:
    """Make a result with the text and a one-line message. `name` is its type; `label`: both begin with it."""
    text = clean_text(text).strip()
    content = f"{name}: {text}" if label and text else text or name
    result = kind(cut_text(" ".join(content.split()), LONGEST_MESSAGE), name)
    result.text = cut_text(content, LONGEST_TEXT)
    return result
