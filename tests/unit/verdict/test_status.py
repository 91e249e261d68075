"""The status of a cell, and of several repeats made one result."""

from collections.abc import Sequence
from typing import Any

import pytest

from lab.base.wait import Speed
from lab.catalog import Suite
from lab.record import (
    CellResult,
    CellVerdict,
    Confidence,
    Expectation,
    Fault,
    FoundCause,
    Needs,
    Outcome,
    Status,
    SuiteRun,
    TestResult,
)
from lab.verdict.status import Circumstances, combine_repeats, has_failure, judge_cell, wilson
from tests.builders.cells import cell, changed
from tests.builders.facts import facts

SUITE = Suite(
    name="small",
    title="A small suite",
    subject="start",
    control="box_starts",
    witness="box_starts",
    test_seconds=10,
    suite_seconds=60,
    tests={
        "presets": Needs.NOTHING,
        "options": Needs.RUNTIME,
        "box_starts": Needs.BOX,
        "jail_starts": Needs.SANDBOX,
        "jail_isolates": Needs.SANDBOX,
    },
)
KILLED = "was killed at its time limit of 60 s"
CRASHED = "was ended by SIGSEGV (exit status 139)"
PASSES = Expectation()
BLOCKED = Expectation(status="xfail", cause="userns-limit")
SANDBOX = {"jail_starts": "fail", "jail_isolates": "fail"}
LIMIT = FoundCause(name="userns-limit", confidence=Confidence.PROVED, reason="user.max_user_namespaces is 0")
SYSCTL = FoundCause(name="userns-sysctl", confidence=Confidence.PROVED, reason="unprivileged_userns_clone is 0")
LIBRARY = FoundCause(name="runtime-library", confidence=Confidence.LIKELY, reason="the shim crashed")
KVM = FoundCause(name="kvm-denied", confidence=Confidence.PROVED, reason="opening /dev/kvm gives EACCES")

either_expectation = pytest.mark.parametrize("expected", [PASSES, BLOCKED])


def verdict(
    outcomes: dict[str, str],
    expected: Expectation = BLOCKED,
    findings: Sequence[FoundCause] = (),
    *,
    messages: dict[str, str] | None = None,
    cut_short: str = "",
    **circumstances: Any,
) -> CellVerdict:
    """Judge a suite whose tests passed except for these, and for those that failed with a message."""
    failed = dict.fromkeys(messages or {}, "fail")
    tests = [
        TestResult(
            name=name,
            outcome=Outcome((outcomes | failed).get(name, "pass")),
            message=(messages or {}).get(name, ""),
        )
        for name in SUITE.tests
    ]
    return judge_cell(SUITE, SuiteRun(tests, cut_short), expected, findings, Circumstances(**circumstances))


@either_expectation
def test_a_suite_without_a_single_result_is_no_pass(expected: Expectation) -> None:
    judged = judge_cell(SUITE, SuiteRun([], KILLED), expected, [])
    assert judged == CellVerdict(status=Status.ERROR, reason="no test of the suite has a result")


def test_what_came_as_expected() -> None:
    assert verdict({}, PASSES) == CellVerdict(status=Status.PASS)
    assert verdict({}, PASSES, killed_for_memory=["apt"]) == CellVerdict(status=Status.PASS)
    assert verdict(SANDBOX, BLOCKED, [LIMIT]) == CellVerdict(
        status=Status.XFAIL,
        cause="userns-limit",
        confidence=Confidence.PROVED,
        causes=[LIMIT],
        reason="user.max_user_namespaces is 0",
    )


NO_PROOF = "the evidence proves no known cause"
OTHERWISE = "expected to fail for userns-limit"
NONE_RAN = dict.fromkeys(SANDBOX, "not-run")


@pytest.mark.parametrize(
    ("outcomes", "expected", "findings", "status", "cause", "reason"),
    [
        ({}, BLOCKED, [], "xpass", None, OTHERWISE),
        # A second cause behind the expected one changes nothing.
        (SANDBOX, BLOCKED, [LIMIT, SYSCTL], "xfail", "userns-limit", SYSCTL.reason),
        (SANDBOX, PASSES, [LIMIT], "fail", "userns-limit", LIMIT.reason),
        (SANDBOX, PASSES, [], "fail", "unknown", NO_PROOF),
        (SANDBOX, BLOCKED, [], "fail", "unknown", OTHERWISE),
        (SANDBOX, BLOCKED, [SYSCTL], "fail", "userns-sysctl", OTHERWISE),
        (SANDBOX, BLOCKED, [SYSCTL, LIMIT], "fail", "userns-sysctl", OTHERWISE),
        # One test more or less than the cause breaks, or none of them.
        ({**SANDBOX, "options": "fail"}, BLOCKED, [LIMIT], "fail", "userns-limit", "failed too: options"),
        ({**SANDBOX, "options": "error"}, BLOCKED, [LIMIT], "fail", "userns-limit", "failed too: options"),
        ({**SANDBOX, "options": "not-run"}, BLOCKED, [LIMIT], "fail", "userns-limit", "not covered: options"),
        (NONE_RAN, BLOCKED, [LIMIT], "fail", "userns-limit", "not covered: jail_isolates, jail_starts"),
        ({"jail_starts": "fail"}, BLOCKED, [LIMIT], "fail", "userns-limit", "unexpectedly: jail_isolates"),
        ({"box_starts": "not-run"}, PASSES, [], "fail", "unknown", "the control did not run (box_starts)"),
        ({"options": "not-run"}, PASSES, [], "fail", "unknown", NO_PROOF),
        ({**SANDBOX, "box_starts": "fail"}, BLOCKED, [], "fail", "unknown", "control failed too (box_starts)"),
        # A skipped test is no coverage, and none that failed as expected.
        ({"jail_starts": "skip"}, PASSES, [], "error", None, "jail_starts"),
        ({"jail_starts": "skip"}, BLOCKED, [], "error", None, "jail_starts"),
        ({**SANDBOX, "jail_isolates": "skip"}, BLOCKED, [LIMIT], "fail", "userns-limit", "jail_isolates"),
    ],
)
def test_the_status_follows_from_outcomes_expectation_and_causes(
    outcomes: dict[str, str],
    expected: Expectation,
    findings: list[FoundCause],
    status: str,
    cause: str | None,
    reason: str,
) -> None:
    judged = verdict(outcomes, expected, findings)
    assert (judged.status, judged.cause) == (status, cause)
    assert reason in judged.reason


@pytest.mark.parametrize(
    ("failed", "status", "reason"),
    [
        ({"options", "box_starts", *SANDBOX}, Status.XFAIL, KVM.reason),
        ({"box_starts", *SANDBOX}, Status.FAIL, "passed unexpectedly: options"),
        ({"presets", "options", "box_starts", *SANDBOX}, Status.FAIL, "failed too: presets"),
    ],
    ids=["all", "one less", "one more"],
)
@pytest.mark.parametrize("behind", [[], [LIMIT]], ids=["alone", "before another"])
def test_which_tests_must_fail_depends_on_the_cause(
    failed: set[str], status: Status, reason: str, behind: list[FoundCause]
) -> None:
    expected = Expectation(status="xfail", cause="kvm-denied")
    judged = verdict(dict.fromkeys(failed, "error"), expected, [KVM, *behind])
    assert (judged.status, judged.cause) == (status, "kvm-denied")
    assert reason in judged.reason


@pytest.mark.parametrize(("guest_causes", "status"), [(["runtime-library"], Status.XFAIL), ([], Status.FAIL)])
def test_what_fails_every_box_is_expected_behind_another_cause_on_its_own_guest_alone(
    guest_causes: list[str], status: Status
) -> None:
    judged = verdict({"box_starts": "fail", **SANDBOX}, BLOCKED, [LIMIT, LIBRARY], guest_causes=guest_causes)
    assert (judged.status, judged.cause) == (status, "userns-limit")
    assert ("failed too: box_starts" in judged.reason) is (not guest_causes)
    # Where only the sandbox is blocked, the guest's own cause makes no test fail.
    assert verdict(SANDBOX, BLOCKED, [LIMIT], guest_causes=guest_causes).status is Status.XFAIL


def test_causes_of_which_neither_contains_the_other_fail_the_tests_of_both() -> None:
    """More open files than the user may have, and a control group that the box did not join."""
    tests = {**SUITE.tests, "many_files": Needs.OPEN_FILES, "own_group": Needs.CGROUP}
    both = [
        FoundCause(name=name, confidence=Confidence.PROVED, reason="seen")
        for name in ("nofile-limit", "cgroup-not-joined")
    ]
    outcomes = dict.fromkeys(tests, Outcome.PASS) | dict.fromkeys(("many_files", "own_group"), Outcome.FAIL)
    run = SuiteRun([TestResult(name=name, outcome=outcome) for name, outcome in outcomes.items()])
    suite = SUITE.model_copy(update={"tests": tests})
    expected = Expectation(status="xfail", cause="nofile-limit")
    own = Circumstances(guest_causes=["cgroup-not-joined"])
    assert judge_cell(suite, run, expected, both, own).status is Status.XFAIL
    # Where one of the two was not found, its test has failed for another reason.
    judged = judge_cell(suite, run, expected, both[:1], own)
    assert (judged.status, judged.reason) == (Status.FAIL, "seen; failed too: own_group")


TIMED_OUT = """Box uPKT failed to start: timeout after 30s

Evidence at T+30s:
• shim_alive          = {}
• console_bytes       = 0
"""


@pytest.mark.parametrize(("alive", "fault"), [("true", Fault.TOO_SLOW), ("false", None)])
def test_a_box_whose_process_had_died_was_not_slow(alive: str, fault: Fault | None) -> None:
    slow = Speed(emulated=True)
    judged = verdict({}, PASSES, messages={"jail_starts": TIMED_OUT.format(alive)}, speed=slow)
    assert judged.fault is fault


@pytest.mark.parametrize("emulated", [True, False])
def test_a_box_too_slow_under_emulation_is_the_labs_fault_and_under_kvm_boxlites(emulated: bool) -> None:
    # boxlite 0.10.8's message in a guest that shared two processors with two other guests.
    message = (
        "engine reported an error: The VM failed to start: timed out after 30s waiting for it to become ready."
    )
    judged = verdict({}, PASSES, messages={"jail_starts": message}, speed=Speed(emulated))
    assert judged.status is (Status.ERROR if emulated else Status.FAIL)
    assert (judged.fault, judged.faulty) == ((Fault.TOO_SLOW, ["jail_starts"]) if emulated else (None, []))


@pytest.mark.parametrize(
    ("test_is_late", "cut_short"),
    [(True, ""), (True, KILLED), (False, KILLED)],
    ids=["a test", "the suite", "the suite after its last test"],
)
@pytest.mark.parametrize(
    ("emulated", "hangs_count", "status"),
    [(True, False, Status.ERROR), (True, True, Status.FAIL), (False, False, Status.FAIL)],
)
def test_a_limit_of_the_lab_counts_under_kvm_and_under_emulation_only_with_more_time(
    test_is_late: bool, cut_short: str, emulated: bool, hangs_count: bool, status: Status
) -> None:
    tests = [TestResult(name=name, outcome=Outcome.PASS) for name in SUITE.tests]
    if test_is_late:
        tests[-1] = TestResult(name=tests[-1].name, outcome=Outcome.FAIL, out_of_time=True)
    run = SuiteRun(tests, cut_short, out_of_time=bool(cut_short))
    judged = judge_cell(SUITE, run, PASSES, [], Circumstances(speed=Speed(emulated), hangs_count=hangs_count))
    assert judged.status is status
    is_fault = status is Status.ERROR
    assert (judged.fault is Fault.TIME_LIMIT) is is_fault
    assert (f": {tests[-1].name if test_is_late else SUITE.name}" in judged.reason) is is_fault
    # What the others of such a cell showed holds.
    assert judged.faulty == ([tests[-1].name] if test_is_late and is_fault else [])


@pytest.mark.parametrize("emulated", [True, False])
@pytest.mark.parametrize(
    ("outcomes", "expected", "findings", "cause"),
    [
        (SANDBOX, BLOCKED, [LIMIT], "userns-limit"),
        ({"jail_starts": "fail", "box_starts": "not-run"}, PASSES, [LIMIT], "userns-limit"),
        ({"jail_starts": "fail", "box_starts": "not-run"}, BLOCKED, [LIMIT], "userns-limit"),
        # After its last test.
        ({}, PASSES, [], "unknown"),
        ({}, BLOCKED, [], "unknown"),
    ],
)
def test_a_suite_that_crashed_fails_says_how_and_keeps_its_cause(
    emulated: bool, outcomes: dict[str, str], expected: Expectation, findings: list[FoundCause], cause: str
) -> None:
    judged = verdict(outcomes, expected, findings, cut_short=CRASHED, speed=Speed(emulated))
    assert (judged.status, judged.cause) == (Status.FAIL, cause)
    assert f"; the suite {CRASHED}" in judged.reason
    assert all(finding.reason in judged.reason for finding in findings)
    assert "the control failed" not in judged.reason


def test_a_guest_without_memory_is_the_labs_fault_whatever_else_was_found() -> None:
    killed = ["python3", "boxlite-shim"]
    judged = verdict(SANDBOX, BLOCKED, [LIMIT], cut_short=CRASHED, killed_for_memory=killed)
    assert (judged.status, judged.cause) == (Status.ERROR, None)
    assert "killed python3, boxlite-shim" in judged.reason
    assert "memory_mib" in judged.reason
    assert (judged.fault, judged.faulty) == (Fault.NO_MEMORY, list(SANDBOX))


@either_expectation
def test_a_build_that_needs_a_registry_cannot_be_judged_without_one(expected: Expectation) -> None:
    # boxlite 0.9.5's message, whatever root file system its box was given.
    message = (
        "RuntimeError: storage error: Failed to pull image 'debian:bookworm-slim' after trying 1 registry:\n"
        "  - docker.io/library/debian:bookworm-slim: storage error: failed to pull manifest"
    )
    judged = verdict({}, expected, messages=dict.fromkeys(SUITE.tests, message))
    assert (judged.status, judged.cause) == (Status.ERROR, None)
    assert "debian:bookworm-slim from a registry" in judged.reason
    # On a fresh lane it would be the same.
    assert judged.fault and judged.fault.is_lasting
    assert judged.faulty == list(SUITE.tests)


# -- repeats of a cell


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
    slower = changed(result, seconds={"suite": 2.0}, reason="in other words")
    combined = combine_repeats([result, slower, result])
    assert changed(combined, repeats=[], rates=[]) == result
    assert [repeat.status for repeat in combined.suite.repeats] == [result.status] * 3
    assert [repeat.seconds["suite"] for repeat in combined.suite.repeats] == [1.0, 2.0, 1.0]
    assert combined.suite.repeats[1].reason == "in other words"


def test_repeats_that_disagree_are_flaky_with_count_and_interval() -> None:
    repeats = [PASSED] * 4 + [FAILED] * 3 + [PASSED] * 3
    combined = combine_repeats(repeats)
    assert combined.status is Status.FLAKY
    assert "7 of 10 repeats" in combined.reason
    assert "40% to 89%" in combined.reason
    assert "4: pass; 5: fail unknown b; 6: fail unknown b; 7: fail unknown b; 8: pass" in combined.reason
    assert [repeat.status for repeat in combined.suite.repeats] == [repeat.status for repeat in repeats]
    assert [repeat.failed for repeat in combined.suite.repeats[3:5]] == [[], ["b"]]
    assert combined.suite.repeats[4].reason == "b gave 1"


def test_of_flaky_repeats_the_first_that_is_not_as_expected_is_kept_in_detail() -> None:
    other = repeat(Status.FAIL, Outcome.FAIL, Outcome.PASS, cause="unknown")
    certain = changed(FAILED, confidence=Confidence.LIKELY, facts=facts(kernel="6.12"))
    combined = combine_repeats([PASSED, certain, other])
    assert (combined.tests, combined.facts) == (certain.tests, facts(kernel="6.12"))
    assert (combined.cause, combined.verdict.confidence) == ("unknown", Confidence.LIKELY)


LIMITED = repeat(Status.FAIL, Outcome.FAIL, cause="userns-limit")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(LIMITED, repeat(Status.FAIL, Outcome.FAIL, cause="userns-sysctl"), id="cause"),
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
    assert combine_repeats([first, second]).status is Status.FLAKY
    assert combine_repeats([second, first]).status is Status.FLAKY


def test_a_fault_of_the_labs_own_does_not_make_boxlite_flaky() -> None:
    slow = repeat(Status.ERROR, Outcome.FAIL, reason="the emulated guest was too slow")
    assert combine_repeats([PASSED, slow, PASSED]).status is Status.ERROR
    assert combine_repeats([FAILED, slow, PASSED]).status is Status.FLAKY


def test_each_test_has_its_own_rate_over_the_repeats_in_which_it_ran() -> None:
    skipped = repeat(Status.FAIL, Outcome.PASS, Outcome.ERROR, Outcome.NOT_RUN)
    slow = repeat(Status.ERROR, Outcome.FAIL, Outcome.FAIL, Outcome.FAIL, reason="too slow")
    ran = repeat(Status.PASS, Outcome.PASS, Outcome.PASS, Outcome.PASS)
    rates = combine_repeats([ran, skipped, slow, ran]).suite.rates
    assert [(rate.name, rate.failed_in, rate.ran) for rate in rates] == [
        ("a", [], 3),
        ("b", [2], 3),
        ("c", [], 2),
    ]
    for rate in rates:
        assert (rate.low, rate.high) == pytest.approx(wilson(rate.failed, rate.ran), abs=6e-5)


def test_a_single_run_is_no_repeat_unless_it_was_to_be_repeated() -> None:
    assert combine_repeats([FAILED]) == FAILED
    assert combine_repeats([FAILED]).suite.repeats == []
    [rate, other] = combine_repeats([FAILED], at_most=100).suite.rates
    assert (rate.name, rate.failed_in, other.name, other.failed_in) == ("a", [], "b", [1])
    # A test that never ran has no rate.
    assert combine_repeats([repeat(Status.ERROR, Outcome.SKIP, Outcome.NOT_RUN)] * 2).suite.rates == []


def test_what_the_lab_is_to_blame_for_is_no_failure() -> None:
    assert [has_failure(result) for result in (PASSED, FAILED)] == [False, True]
    assert not has_failure(repeat(Status.ERROR, Outcome.FAIL, reason="too slow"))
