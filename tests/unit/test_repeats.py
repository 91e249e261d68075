from typing import Any

import pytest

from lab.record import CellResult, Confidence, Expectation, Outcome, Status, TestResult
from lab.verdict.status import combine, has_failure, wilson
from tests.builders.cells import cell
from tests.builders.facts import facts

BLOCKED = Expectation(status="xfail", cause="userns-limit")


def repeat(status: Status, *outcomes: Outcome, seconds: float = 1.0, **more: Any) -> CellResult:
    """One repeat, whose tests are called a, b and so on."""
    tests = [TestResult(name="abc"[number], outcome=outcome) for number, outcome in enumerate(outcomes)]
    return cell(status=status, tests=tests, seconds={"suite": seconds}, **more)


PASSED = repeat(Status.PASS, Outcome.PASS, Outcome.PASS)
FAILED = repeat(Status.FAIL, Outcome.PASS, Outcome.FAIL, cause="unknown", reason="b gave 1")


# 81 of 263 is an example of R. G. Newcombe, Two-sided confidence intervals for the single proportion
# (Statistics in Medicine 17, 1998), method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (7, 10, 0.3968, 0.8922),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (1, 2, 0.0945, 0.9055),
    ],
)
def test_the_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    "result",
    [
        PASSED,
        FAILED,
        repeat(Status.XFAIL, Outcome.FAIL, cause="userns-limit", reason="ENOSPC", expected=BLOCKED),
        repeat(Status.XPASS, Outcome.PASS, reason="passed", expected=BLOCKED),
        repeat(Status.ERROR, Outcome.FAIL, reason="too slow"),
    ],
)
def test_repeats_that_agree_keep_status_and_reason(result: CellResult) -> None:
    slower = result.model_copy(update={"seconds": {"suite": 2.0}, "reason": "in other words"})
    combined = combine([result, slower, result])
    assert combined.model_copy(update={"repeats": [], "rates": []}) == result
    assert [repeat.status for repeat in combined.repeats] == [result.status] * 3
    assert [repeat.seconds["suite"] for repeat in combined.repeats] == [1.0, 2.0, 1.0]
    assert combined.repeats[1].reason == "in other words"


def test_repeats_that_disagree_are_flaky_with_count_and_interval() -> None:
    repeats = [PASSED] * 4 + [FAILED] * 3 + [PASSED] * 3
    combined = combine(repeats)
    assert combined.status is Status.FLAKY
    assert "7 of 10 repeats" in combined.reason
    assert "40% to 89%" in combined.reason
    assert "4: pass; 5: fail unknown b; 6: fail unknown b; 7: fail unknown b; 8: pass" in combined.reason
    assert [repeat.status for repeat in combined.repeats] == [repeat.status for repeat in repeats]
    assert [repeat.failed for repeat in combined.repeats[3:5]] == [[], ["b"]]
    assert combined.repeats[4].reason == "b gave 1"


def test_of_flaky_repeats_the_first_that_is_not_as_expected_is_kept_in_detail() -> None:
    other = repeat(Status.FAIL, Outcome.FAIL, Outcome.PASS, cause="unknown")
    certain = FAILED.model_copy(update={"confidence": Confidence.LIKELY, "facts": facts(kernel="6.12")})
    combined = combine([PASSED, certain, other])
    assert (combined.tests, combined.facts) == (certain.tests, facts(kernel="6.12"))
    assert (combined.cause, combined.confidence) == ("unknown", Confidence.LIKELY)


LIMIT = repeat(Status.FAIL, Outcome.FAIL, cause="userns-limit")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(LIMIT, repeat(Status.FAIL, Outcome.FAIL, cause="userns-sysctl"), id="cause"),
        pytest.param(
            repeat(Status.FAIL, Outcome.FAIL, Outcome.PASS),
            repeat(Status.FAIL, Outcome.PASS, Outcome.FAIL),
            id="which test failed",
        ),
        pytest.param(
            repeat(Status.XFAIL, Outcome.FAIL, expected=BLOCKED),
            repeat(Status.FAIL, Outcome.FAIL, expected=BLOCKED),
            id="status",
        ),
        pytest.param(repeat(Status.FAIL, Outcome.FAIL), repeat(Status.FAIL, Outcome.ERROR), id="outcome"),
    ],
)
def test_repeats_agree_only_in_status_cause_and_every_outcome(first: CellResult, second: CellResult) -> None:
    assert combine([first, second]).status is Status.FLAKY
    assert combine([second, first]).status is Status.FLAKY


def test_a_fault_of_the_labs_own_does_not_make_boxlite_flaky() -> None:
    slow = repeat(Status.ERROR, Outcome.FAIL, reason="the emulated guest was too slow")
    assert combine([PASSED, slow, PASSED]).status is Status.ERROR
    assert combine([FAILED, slow, PASSED]).status is Status.FLAKY


def test_each_test_has_its_own_rate_over_the_repeats_in_which_it_ran() -> None:
    skipped = repeat(Status.FAIL, Outcome.PASS, Outcome.ERROR, Outcome.NOT_RUN)
    slow = repeat(Status.ERROR, Outcome.FAIL, Outcome.FAIL, Outcome.FAIL, reason="too slow")
    ran = repeat(Status.PASS, Outcome.PASS, Outcome.PASS, Outcome.PASS)
    rates = combine([ran, skipped, slow, ran]).rates
    assert [(rate.name, rate.failed_in, rate.ran) for rate in rates] == [
        ("a", [], 3),
        ("b", [2], 3),
        ("c", [], 2),
    ]
    for rate in rates:
        assert (rate.low, rate.high) == pytest.approx(wilson(rate.failed, rate.ran), abs=6e-5)


def test_a_single_run_is_no_repeat_unless_it_was_to_be_repeated() -> None:
    assert combine([FAILED]) == FAILED
    assert combine([FAILED]).repeats == []
    [rate, other] = combine([FAILED], at_most=100).rates
    assert (rate.name, rate.failed_in, other.name, other.failed_in) == ("a", [], "b", [1])
    # A test that never ran has no rate.
    assert combine([repeat(Status.ERROR, Outcome.SKIP, Outcome.NOT_RUN)] * 2).rates == []


def test_what_the_lab_is_to_blame_for_is_no_failure() -> None:
    assert [has_failure(result) for result in (PASSED, FAILED)] == [False, True]
    assert not has_failure(repeat(Status.ERROR, Outcome.FAIL, reason="too slow"))
