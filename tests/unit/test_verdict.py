from collections.abc import Sequence

import pytest

from lab.base.speed import Speed
from lab.catalog import Suite
from lab.record import Confidence, Expectation, Finding, Needs, Outcome, Status, TestResult
from lab.verdict.status import Verdict, is_fault, is_lasting, judge, may_be_hang

SUITE = Suite(
    name="small",
    title="A small suite",
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
LIMIT = Finding(name="userns-limit", confidence=Confidence.PROVED, why="user.max_user_namespaces is 0")
SYSCTL = Finding(
    name="userns-sysctl", confidence=Confidence.PROVED, why="kernel.unprivileged_userns_clone is 0"
)
KVM = Finding(name="kvm-denied", confidence=Confidence.PROVED, why="opening /dev/kvm gives EACCES")


def verdict(
    outcomes: dict[str, str],
    expected: Expectation = BLOCKED,
    findings: list[Finding] | None = None,
    *,
    cut_short: str = "",
    killed_for_memory: Sequence[str] = (),
) -> Verdict:
    """Judge a suite whose tests passed except for these."""
    tests = [TestResult(name=name, outcome=Outcome(outcomes.get(name, "pass"))) for name in SUITE.tests]
    return judge(
        SUITE, tests, expected, findings or [], cut_short=cut_short, killed_for_memory=killed_for_memory
    )


def test_all_passed_as_expected() -> None:
    assert verdict({}, PASSES) == Verdict(Status.PASS)


@pytest.mark.parametrize("cut_short", ["", KILLED])
@pytest.mark.parametrize("expected", [PASSES, BLOCKED])
def test_a_suite_without_a_single_result_is_no_pass(expected: Expectation, cut_short: str) -> None:
    judged = judge(SUITE, [], expected, [], cut_short=cut_short)
    assert judged == Verdict(Status.ERROR, reason="no test of the suite has a result")


def test_all_passed_where_a_failure_was_expected() -> None:
    judged = verdict({})
    assert judged.status is Status.XPASS
    assert judged.reason == "passed, but was expected to fail for userns-limit"


def test_the_expected_tests_failed_for_the_expected_cause() -> None:
    expected = Verdict(Status.XFAIL, "userns-limit", Confidence.PROVED, "user.max_user_namespaces is 0")
    assert verdict(SANDBOX, findings=[LIMIT]) == expected


def test_a_second_cause_behind_the_expected_one_is_named_and_changes_nothing() -> None:
    judged = verdict(SANDBOX, findings=[LIMIT, SYSCTL])
    assert (judged.status, judged.cause) == (Status.XFAIL, "userns-limit")
    assert SYSCTL.why in judged.reason


@pytest.mark.parametrize(
    ("outcomes", "expected", "findings", "cause", "reason"),
    [
        (SANDBOX, PASSES, [LIMIT], "userns-limit", "user.max_user_namespaces is 0"),
        (SANDBOX, PASSES, [], "unknown", "the evidence proves no known cause"),
        (SANDBOX, BLOCKED, [], "unknown", "expected to fail for userns-limit"),
        (SANDBOX, BLOCKED, [SYSCTL], "userns-sysctl", "expected to fail for userns-limit"),
        (SANDBOX, BLOCKED, [SYSCTL, LIMIT], "userns-sysctl", "expected to fail for userns-limit"),
        ({**SANDBOX, "options": "fail"}, BLOCKED, [LIMIT], "userns-limit", "failed too: options"),
        ({**SANDBOX, "options": "error"}, BLOCKED, [LIMIT], "userns-limit", "failed too: options"),
        (
            {**SANDBOX, "options": "not-run"},
            BLOCKED,
            [LIMIT],
            "userns-limit",
            "did not run, so not covered: options",
        ),
        (
            dict.fromkeys(SANDBOX, "not-run"),
            BLOCKED,
            [LIMIT],
            "userns-limit",
            "so not covered: jail_isolates, jail",
        ),
        ({"box_starts": "not-run"}, PASSES, [], "unknown", "the control did not run (box_starts)"),
        ({"options": "not-run"}, PASSES, [], "unknown", "the evidence proves no known cause"),
        ({"jail_starts": "fail"}, BLOCKED, [LIMIT], "userns-limit", "unexpectedly: jail_isolates"),
        (
            {**SANDBOX, "box_starts": "fail"},
            BLOCKED,
            [],
            "unknown",
            "the control failed too (box_starts)",
        ),
    ],
    ids=[
        "a pass was expected",
        "a pass was expected and nothing is proved",
        "nothing is proved",
        "another cause",
        "another cause first",
        "one test more",
        "one test more, by error",
        "one test more, which did not run",
        "none of them ran",
        "the control did not run and nothing is proved",
        "a test did not run and nothing is proved",
        "one test less",
        "the control too",
    ],
)
def test_any_other_failure_is_a_failure(
    outcomes: dict[str, str],
    expected: Expectation,
    findings: list[Finding],
    cause: str,
    reason: str,
) -> None:
    judged = verdict(outcomes, expected, findings)
    assert (judged.status, judged.cause) == (Status.FAIL, cause)
    assert reason in judged.reason


@pytest.mark.parametrize(
    ("failed", "status", "reason"),
    [
        ({"options", "box_starts", *SANDBOX}, Status.XFAIL, KVM.why),
        ({"box_starts", *SANDBOX}, Status.FAIL, "passed unexpectedly: options"),
        ({"presets", "options", "box_starts", *SANDBOX}, Status.FAIL, "failed too: presets"),
    ],
    ids=["all", "one less", "one more"],
)
@pytest.mark.parametrize("behind", [[], [LIMIT]], ids=["alone", "before another"])
def test_which_tests_must_fail_depends_on_the_cause(
    failed: set[str], status: Status, reason: str, behind: list[Finding]
) -> None:
    expected = Expectation(status="xfail", cause="kvm-denied")
    judged = verdict(dict.fromkeys(failed, "error"), expected, [KVM, *behind])
    assert (judged.status, judged.cause) == (status, "kvm-denied")
    assert reason in judged.reason


@pytest.mark.parametrize("expected", [PASSES, BLOCKED])
def test_a_skipped_test_is_no_coverage(expected: Expectation) -> None:
    judged = verdict({"jail_starts": "skip"}, expected)
    assert judged.status is Status.ERROR
    assert "jail_starts" in judged.reason


@pytest.mark.parametrize("emulated", [True, False])
def test_a_box_too_slow_under_emulation_is_the_labs_fault_and_under_kvm_boxlites(emulated: bool) -> None:
    # boxlite 0.10.8's message in a guest that shared two processors with two other guests.
    message = (
        "engine reported an error: The VM failed to start: timed out after 30s waiting for it to become ready."
    )
    tests = [
        TestResult(name=name, outcome=Outcome.FAIL, message=message)
        if name == "jail_starts"
        else TestResult(name=name, outcome=Outcome.PASS)
        for name in SUITE.tests
    ]
    verdict = judge(SUITE, tests, Expectation(), [], speed=Speed(emulated))
    assert verdict.status is (Status.ERROR if emulated else Status.FAIL)
    assert ("too slow" in verdict.reason) is emulated


TEST_LIMIT = "Failed: Timeout (>120.0s) from pytest-timeout."


@pytest.mark.parametrize(
    ("message", "cut_short"),
    [(TEST_LIMIT, ""), (f"was running when the suite {KILLED}", KILLED), (None, KILLED)],
    ids=["a test", "the suite", "the suite after its last test"],
)
@pytest.mark.parametrize(
    ("emulated", "hangs_count", "status"),
    [(True, False, Status.ERROR), (True, True, Status.FAIL), (False, False, Status.FAIL)],
)
def test_a_limit_of_the_lab_counts_under_kvm_and_under_emulation_only_with_more_time(
    message: str | None, cut_short: str, emulated: bool, hangs_count: bool, status: Status
) -> None:
    tests = [TestResult(name=name, outcome=Outcome.PASS) for name in SUITE.tests]
    if message:
        tests[-1] = TestResult(name=tests[-1].name, outcome=Outcome.FAIL, message=message)
    judged = judge(
        SUITE, tests, PASSES, [], cut_short=cut_short, speed=Speed(emulated), hangs_count=hangs_count
    )
    assert judged.status is status
    assert may_be_hang(judged.reason) is (status is Status.ERROR)
    assert (f": {tests[-1].name if message else SUITE.name}" in judged.reason) is (status is Status.ERROR)
    # What the others of such a cell showed holds.
    of_boxlite = [test.name for test in tests if not is_fault(test, judged.reason)]
    assert len(of_boxlite) == len(tests) - bool(message and status is Status.ERROR)


def test_a_suite_that_crashed_under_emulation_is_no_hang() -> None:
    tests = [TestResult(name=name, outcome=Outcome.PASS) for name in SUITE.tests]
    judged = judge(SUITE, tests, PASSES, [], cut_short=CRASHED, speed=Speed(emulated=True))
    assert judged.status is Status.FAIL


def test_a_skipped_test_does_not_count_as_one_that_failed_as_expected() -> None:
    judged = verdict({"jail_starts": "fail", "jail_isolates": "skip"}, findings=[LIMIT])
    assert not judged.status.as_expected


def test_a_killed_suite_has_never_failed_as_expected() -> None:
    judged = verdict(SANDBOX, findings=[LIMIT], cut_short=KILLED)
    assert (judged.status, judged.cause) == (Status.FAIL, "userns-limit")
    assert "killed at its time limit" in judged.reason


@pytest.mark.parametrize("expected", [PASSES, BLOCKED])
def test_a_suite_that_was_killed_after_its_last_test_has_not_passed(expected: Expectation) -> None:
    judged = verdict({}, expected, cut_short=KILLED)
    assert not judged.status.as_expected
    assert "killed at its time limit" in judged.reason


@pytest.mark.parametrize("expected", [PASSES, BLOCKED])
def test_a_suite_that_crashed_says_how_and_keeps_its_cause(expected: Expectation) -> None:
    outcomes = {"jail_starts": "fail", "box_starts": "not-run", "jail_isolates": "not-run"}
    judged = verdict(outcomes, expected, [LIMIT], cut_short=CRASHED)
    assert (judged.status, judged.cause) == (Status.FAIL, "userns-limit")
    assert f"{LIMIT.why}; the suite was ended by SIGSEGV (exit status 139)" in judged.reason
    assert "the control failed" not in judged.reason


@pytest.mark.parametrize("cut_short", ["", CRASHED.replace("SIGSEGV", "SIGKILL")])
def test_a_guest_without_memory_is_the_labs_fault_whatever_else_was_found(cut_short: str) -> None:
    killed = ["python3", "boxlite-shim"]
    judged = verdict(SANDBOX, BLOCKED, [LIMIT], cut_short=cut_short, killed_for_memory=killed)
    assert (judged.status, judged.cause) == (Status.ERROR, None)
    assert "no memory left, and its kernel killed python3, boxlite-shim" in judged.reason
    assert "memory_mib" in judged.reason


def test_a_suite_that_passed_where_the_guest_ran_out_of_memory_has_passed() -> None:
    assert verdict({}, PASSES, killed_for_memory=["apt"]).status is Status.PASS


@pytest.mark.parametrize("expected", [PASSES, BLOCKED])
def test_a_build_that_needs_a_registry_cannot_be_judged_without_one(expected: Expectation) -> None:
    # boxlite 0.9.5's message, whatever root file system its box was given.
    message = (
        "RuntimeError: storage error: Failed to pull image 'debian:bookworm-slim' after trying 1 registry:\n"
        "  - docker.io/library/debian:bookworm-slim: storage error: failed to pull manifest"
    )
    tests = [TestResult(name=name, outcome=Outcome.FAIL, message=message) for name in SUITE.tests]
    judged = judge(SUITE, tests, expected, [])
    assert (judged.status, judged.cause) == (Status.ERROR, None)
    assert "pulls debian:bookworm-slim from a registry" in judged.reason
    # On a fresh lane it would be the same.
    assert is_lasting(judged.reason)
    assert not is_lasting("the machine is gone")
