"""A run as JUnit XML: read back by junitparser, and checked against the schema that CI systems go by."""

from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import pytest
import xmlschema
from junitparser import JUnitXml, TestCase, TestSuite

from lab.record import CellResult, Expectation, Outcome, RunResult, Status, TestResult
from lab.report import junit
from tests.builders.cells import cell
from tests.builders.runs import run_of

DATA = Path(__file__).parent / "data"
SCHEMA = xmlschema.XMLSchema(DATA / "junit.xsd")
XFAIL: dict[str, Any] = {
    "status": Status.XFAIL,
    "expected": Expectation(status="xfail", cause="userns-limit"),
    "cause": "userns-limit",
    "reason": "the limit is 0",
}
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


def test_the_counts_are_right_and_times_are_in_seconds() -> None:
    tests = [a_test(name, outcome) for name, outcome in OUTCOMES.items()]
    report = read(run_of(cell(status=Status.FAIL, tests=tests), cell("debian-12", tests=tests[:1]), cell("x")))
    assert (report.tests, report.failures, report.errors, report.time) == (8, 2, 1, 6.175)
    [first, second, third] = report
    assert (first.tests, first.failures, first.errors, first.skipped, first.time) == (5, 2, 1, 1, 4.94)
    assert (second.name, second.tests, second.time) == ("debian-12 stock 0.10.8", 2, 1.235)
    assert (third.tests, third.time) == (1, 0.0)


def test_the_build_is_in_the_names_only_if_there_are_several() -> None:
    assert set(cases(cell("ubuntu-24.04"))) == {"ubuntu-24.04.stock cell"}
    assert set(cases(cell(build="0.10.0"), cell())) == {
        "0.10.0.debian-13.stock cell",
        "0.10.8.debian-13.stock cell",
    }


def test_a_suite_says_what_the_cell_is_and_how_to_run_it_again() -> None:
    run = run_of(cell(rerun="lab matrix -g debian-13", evidence=["x"], **XFAIL))
    properties = ElementTree.fromstring(junit.render(run).encode()).iterfind("testsuite/properties/property")
    assert {each.get("name"): each.get("value") for each in properties} == {
        "guest": "debian-13",
        "variant": "stock",
        "build": "0.10.8",
        "kernel": "-",
        "status": "xfail",
        "cause": "userns-limit",
        "evidence": "cells/debian-13/stock/0.10.8",
        "rerun": "lab matrix -g debian-13",
    }
    [suite] = read(run)
    assert suite.timestamp == "2026-11-24T16:00:00+00:00"


def test_a_run_without_cells_is_a_valid_report() -> None:
    assert (len(read(run_of())), read(run_of()).tests) == (0, 0)


HOSTILE = ']]></failure><testcase name="x"/> <![CDATA[ &amp; \x00\x08\x1b[31m\x85\ufffe\uffff\ud800 "\'é\u202e'


def test_hostile_text_stays_text_and_what_xml_cannot_hold_is_left_out() -> None:
    tests = [TestResult.model_construct(name=HOSTILE, outcome=Outcome.FAIL, seconds=0.0, message=HOSTILE)]
    hostile = cell(status=Status.FAIL).model_copy(
        update={"guest": HOSTILE, "build": HOSTILE, "cause": HOSTILE, "reason": HOSTILE, "tests": tests}
    )
    [suite] = read(run_of(hostile))
    said = ']]></failure><testcase name="x"/> <![CDATA[ &amp; "\'é'
    assert suite.name == f"{said} stock {said}"
    assert [(case.name, shown(case)[2]) for case in suite] == [("cell", f"{said}: {said}"), (said, said)]
    assert suite.tests == 2


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
