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
from tests.unit.test_report_cells import everything

DATA = Path(__file__).parent / "data"
SCHEMA = xmlschema.XMLSchema(DATA / "junit.xsd")
XFAIL: dict[str, Any] = {"status": Status.XFAIL, "cause": "userns-limit", "reason": "the limit is 0"}
OUTCOMES = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "skip": Outcome.SKIP, "error": Outcome.ERROR}


def read(run: RunResult) -> JUnitXml:
    """The run's report, read back after the schema accepted it."""
    text = junit.render(run)
    SCHEMA.validate(text)
    return JUnitXml.fromstring(text.encode())


def cases(*cells: CellResult) -> dict[str, TestCase]:
    """The test cases of the report, by class and name."""
    found = [case for suite in read(run_of(*cells)) for case in suite]
    by_name = {f"{case.classname} {case.name}": case for case in found}
    assert len(by_name) == len(found), "a CI system knows a test case by its class and name"
    return by_name


def shown(case: TestCase) -> tuple[str, str, str]:
    """The element, type and message of a case's result; `passed` without one."""
    if not case.result:
        return "passed", "", ""
    [result] = case.result
    return type(result).__name__.lower(), result.type, result.message


def a_test(name: str, outcome: Outcome, message: str = "") -> TestResult:
    return TestResult(name=name, outcome=outcome, message=message, seconds=1.23456)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"status": Status.PASS}, ("passed", "", "")),
        (XFAIL, ("skipped", "expected failure", "expected failure: userns-limit: the limit is 0")),
        (
            {"status": Status.NOT_APPLICABLE, "reason": "no AppArmor"},
            ("skipped", "not applicable", "not applicable: no AppArmor"),
        ),
        ({"status": Status.FAIL, "cause": "unknown", "reason": "x"}, ("failure", "fail", "unknown: x")),
        ({"status": Status.XPASS, "reason": "passed, but"}, ("failure", "xpass", "passed, but")),
        ({"status": Status.FLAKY, "reason": "2 of 3"}, ("failure", "flaky", "2 of 3")),
        ({"status": Status.ERROR, "reason": "no SSH"}, ("error", "error", "no SSH")),
        ({"status": Status.NOT_RUN, "reason": "no image"}, ("error", "not-run", "no image")),
        ({"status": Status.NOT_RUN}, ("error", "not-run", "the cell has no result")),
    ],
)
def test_each_status_has_a_result_without_tests(more: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert {name: shown(case) for name, case in cases(cell(**more)).items()} == {
        "debian-13.stock cell": expected
    }


def test_nothing_but_a_pass_is_a_pass() -> None:
    for status in Status:
        tests = [a_test("t", outcome) for outcome in Outcome if outcome is not Outcome.PASS]
        for outcome in tests:
            found = cases(cell(status=status, tests=[outcome]))
            assert shown(found["debian-13.stock t"])[0] != "passed"
            assert (shown(found["debian-13.stock cell"])[0] == "passed") is (status is Status.PASS)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"status": Status.FAIL},
            {
                "pass": ("passed", "", ""),
                "fail": ("failure", "fail", "said"),
                "skip": ("skipped", "skip", "said"),
                "error": ("error", "error", "said"),
            },
        ),
        (
            XFAIL,
            {
                "pass": ("passed", "", ""),
                "fail": ("skipped", "expected failure", "expected failure: said"),
                "skip": ("skipped", "skip", "said"),
                "error": ("skipped", "expected failure", "expected failure: said"),
            },
        ),
        # What failed in a cell that the lab could not run is no failure of boxlite.
        (
            {"status": Status.ERROR, "reason": "no SSH"},
            {
                "pass": ("passed", "", ""),
                "fail": ("error", "fault of the lab", "no SSH said"),
                "skip": ("skipped", "skip", "said"),
                "error": ("error", "fault of the lab", "no SSH said"),
            },
        ),
    ],
)
def test_each_outcome_has_a_result(more: dict[str, Any], expected: dict[str, tuple[str, str, str]]) -> None:
    tests = [a_test(name, outcome, "said") for name, outcome in OUTCOMES.items()]
    found = cases(cell(**more, tests=tests))
    assert {name: shown(found[f"debian-13.stock {name}"]) for name in OUTCOMES} == expected


@pytest.mark.parametrize("status", [Status.XFAIL, Status.FAIL, Status.ERROR])
def test_a_test_that_did_not_run_is_an_error(status: Status) -> None:
    found = cases(cell(status=status, tests=[a_test("t", Outcome.NOT_RUN)]))
    assert shown(found["debian-13.stock t"]) == ("error", "not-run", "the test did not run")


def test_the_report_of_everything_is_valid_and_its_counts_are_right() -> None:
    report = read(everything())
    found = [shown(case)[0] for suite in report for case in suite]
    assert (report.tests, report.failures, report.errors) == (
        len(found),
        found.count("failure"),
        found.count("error"),
    )
    assert report.time == 1.235


def test_the_build_is_in_the_names_only_if_there_are_several() -> None:
    assert set(cases(cell("ubuntu-24.04"))) == {"ubuntu-24.04.stock cell"}
    assert set(cases(cell(build="0.10.0"), cell())) == {
        "0.10.0.debian-13.stock cell",
        "0.10.8.debian-13.stock cell",
    }


def test_a_run_without_cells_is_a_valid_report() -> None:
    assert (len(read(run_of())), read(run_of()).tests) == (0, 0)


HOSTILE = ']]></failure><testcase name="x"/> <![CDATA[ &amp; \x00\x08\x1b[31m\x85\ufffe\uffff\ud800 "\'é\u202e'


def test_hostile_text_stays_text_and_what_xml_cannot_hold_is_left_out() -> None:
    tests = [TestResult.model_construct(name=HOSTILE, outcome=Outcome.FAIL, seconds=0.0, message=HOSTILE)]
    [suite] = read(run_of(cell(status=Status.FAIL).model_copy(update={"guest": HOSTILE, "tests": tests})))
    said = ']]></failure><testcase name="x"/> <![CDATA[ &amp; "\'é'
    assert suite.name == f"{said} stock 0.10.8"
    assert [(case.name, shown(case)[2]) for case in suite] == [("cell", "fail"), (said, said)]


def test_a_message_of_ten_megabytes_is_cut_and_the_report_says_so() -> None:
    tests = [a_test("t", Outcome.FAIL, "x" * 10_000_000)]
    run = run_of(cell(status=Status.FAIL, reason="y" * 10_000_000, tests=tests))
    assert len(junit.render(run)) < 100_000
    [case, test] = [case for suite in read(run) for case in suite]
    assert test.result[0].message == "x" * 300 + "... (9999700 more characters)"
    assert test.result[0].text == "x" * 20_000 + "... (9980000 more characters)"
    assert case.result[0].text.endswith("... (9980000 more characters)")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e-7])
def test_seconds_that_are_no_number_are_none(seconds: float) -> None:
    test = a_test("t", Outcome.PASS).model_copy(update={"seconds": seconds})
    assert cases(cell(tests=[test]))["debian-13.stock t"].time == 0.0


def test_no_suite_is_compared_with_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(_suite: TestSuite, _other: object) -> NoReturn:
        raise AssertionError("with thousands of cells this takes most of the time")

    monkeypatch.setattr(TestSuite, "__eq__", compare)
    assert junit.render(run_of(*(cell(variant=f"v{number}") for number in range(3)))).count("<testsuite ") == 3
