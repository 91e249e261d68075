"""A run as JUnit XML: read back by junitparser, and checked against the schema that CI systems go by."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import xmlschema
from junitparser import JUnitXml, TestCase, TestSuite

from lab.record import CellResult, Outcome, RunResult, Status, TestResult
from lab.report import junit
from tests.builders.cells import cell
from tests.builders.runs import run_of
from tests.unit.report.test_cells import everything

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[1] / "data" / "junit.xsd")
XFAIL: dict[str, Any] = {"status": Status.XFAIL, "cause": "userns-limit", "reason": "the limit is 0"}
NO_SSH: dict[str, Any] = {"status": Status.ERROR, "reason": "no SSH"}
PASSED = ("passed", "", "")


def read(run: RunResult) -> JUnitXml:
    """The run's report, read back after the schema accepted it."""
    text = junit.render_junit(run)
    SCHEMA.validate(text)
    return JUnitXml.fromstring(text.encode())


def cases(*cells: CellResult) -> dict[str, TestCase]:
    """The test cases of the report, by class and name."""
    listed = [case for suite in read(run_of(*cells)) for case in suite]
    by_name = {f"{case.classname} {case.name}": case for case in listed}
    assert len(by_name) == len(listed), "a CI system knows a test case by its class and name"
    return by_name


def result_of(case: TestCase) -> tuple[str, str, str]:
    """The element, type and message of a case's result; `passed` without one."""
    if not case.result:
        return PASSED
    [result] = case.result
    return type(result).__name__.lower(), result.type, result.message


def a_test(name: str, outcome: Outcome, message: str = "") -> TestResult:
    return TestResult(name=name, outcome=outcome, message=message, seconds=1.23456)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"status": Status.PASS}, PASSED),
        (XFAIL, ("skipped", "expected failure", "expected failure: userns-limit: the limit is 0")),
        (
            {"status": Status.NOT_APPLICABLE, "reason": "no AppArmor"},
            ("skipped", "not applicable", "not applicable: no AppArmor"),
        ),
        ({"status": Status.FAIL, "cause": "unknown", "reason": "x"}, ("failure", "fail", "unknown: x")),
        ({"status": Status.XPASS, "reason": "passed, but"}, ("failure", "xpass", "passed, but")),
        ({"status": Status.FLAKY, "reason": "2 of 3"}, ("failure", "flaky", "2 of 3")),
        (NO_SSH, ("error", "error", "no SSH")),
        ({"status": Status.NOT_RUN, "reason": "no image"}, ("error", "not-run", "no image")),
        ({"status": Status.NOT_RUN}, ("error", "not-run", "the cell has no result")),
    ],
)
def test_each_status_has_a_result_without_tests(more: dict[str, Any], expected: tuple[str, str, str]) -> None:
    [(name, case)] = cases(cell(**more)).items()
    assert (name, result_of(case)) == ("debian-13.stock cell", expected)


@pytest.mark.parametrize(
    ("more", "outcome", "expected"),
    [
        ({"status": Status.FAIL}, Outcome.FAIL, ("failure", "fail", "words")),
        ({"status": Status.FAIL}, Outcome.ERROR, ("error", "error", "words")),
        (XFAIL, Outcome.FAIL, ("skipped", "expected failure", "expected failure")),
        (XFAIL, Outcome.SKIP, ("skipped", "skip", "words")),
        (XFAIL, Outcome.ERROR, ("skipped", "expected failure", "expected failure: words")),
        # What failed in a cell that the lab could not run is no failure of boxlite.
        (NO_SSH, Outcome.FAIL, ("error", "fault of the lab", "no SSH words")),
        (NO_SSH, Outcome.SKIP, ("skipped", "skip", "words")),
        (XFAIL, Outcome.NOT_RUN, ("error", "not-run", "words")),
        *((more, Outcome.NOT_RUN, ("error", "not-run", "the test did not run")) for more in (XFAIL, NO_SSH)),
    ],
)
def test_each_outcome_has_a_result(
    more: dict[str, Any], outcome: Outcome, expected: tuple[str, str, str]
) -> None:
    message = "words" if "words" in expected[2] else ""
    by_name = cases(cell(**more, tests=[a_test("t", outcome, message)]))
    assert result_of(by_name["debian-13.stock t"]) == expected


def test_the_report_of_everything_is_valid_and_its_counts_are_right() -> None:
    report = read(everything())
    elements = [result_of(case)[0] for suite in report for case in suite]
    counts = len(elements), elements.count("failure"), elements.count("error")
    assert (report.tests, report.failures, report.errors) == counts
    assert report.time == 1.235
    empty = read(run_of())
    assert (len(empty), empty.tests) == (0, 0)


def test_the_build_is_in_the_names_only_if_there_are_several() -> None:
    assert set(cases(cell("ubuntu-24.04"))) == {"ubuntu-24.04.stock cell"}
    assert set(cases(cell(build="0.10.0"), cell())) == {
        "0.10.0.debian-13.stock cell",
        "0.10.8.debian-13.stock cell",
    }


def test_a_message_of_a_megabyte_is_cut_and_the_report_says_so() -> None:
    tests = [a_test("t", Outcome.FAIL, "x" * 1_000_000), a_test("n" * 1_000_000, Outcome.PASS)]
    run = run_of(cell(status=Status.FAIL, reason="y" * 1_000_000, tests=tests))
    assert len(junit.render_junit(run)) < 100_000
    [case, test, _] = [case for suite in read(run) for case in suite]
    assert test.result[0].message == "x" * 300 + "... (999700 more characters)"
    assert test.result[0].text == "x" * 20_000 + "... (980000 more characters)"
    assert case.result[0].text.endswith("... (980000 more characters)")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e-7])
def test_seconds_that_are_no_number_are_none(seconds: float) -> None:
    test = a_test("t", Outcome.PASS).model_copy(update={"seconds": seconds})
    assert cases(cell(tests=[test]))["debian-13.stock t"].time == 0.0


def test_no_suite_is_compared_with_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(_suite: TestSuite, _other: object) -> NoReturn:
        raise AssertionError("with thousands of cells this takes most of the time")

    monkeypatch.setattr(TestSuite, "__eq__", compare)
    assert (
        junit.render_junit(run_of(*(cell(variant=f"v{number}") for number in range(3)))).count("<testsuite ")
        == 3
    )
