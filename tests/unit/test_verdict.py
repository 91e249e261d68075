from collections.abc import Sequence
from typing import Any

import pytest

from lab.base.wait import Speed
from lab.catalog import Suite
from lab.record import Confidence, Expectation, Fault, Finding, Needs, Outcome, Status, TestResult
from lab.verdict.status import Verdict, judge

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
SYSCTL = Finding(name="userns-sysctl", confidence=Confidence.PROVED, why="unprivileged_userns_clone is 0")
KVM = Finding(name="kvm-denied", confidence=Confidence.PROVED, why="opening /dev/kvm gives EACCES")

either_expectation = pytest.mark.parametrize("expected", [PASSES, BLOCKED])


def verdict(
    outcomes: dict[str, str],
    expected: Expectation = BLOCKED,
    findings: Sequence[Finding] = (),
    *,
    messages: dict[str, str] | None = None,
    **more: Any,
) -> Verdict:
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
    return judge(SUITE, tests, expected, list(findings), **more)


@either_expectation
def test_a_suite_without_a_single_result_is_no_pass(expected: Expectation) -> None:
    judged = judge(SUITE, [], expected, [], cut_short=KILLED)
    assert judged == Verdict(Status.ERROR, reason="no test of the suite has a result")


def test_what_came_as_expected() -> None:
    assert verdict({}, PASSES) == Verdict(Status.PASS)
    assert verdict({}, PASSES, killed_for_memory=["apt"]) == Verdict(Status.PASS)
    assert verdict(SANDBOX, BLOCKED, [LIMIT]) == Verdict(
        Status.XFAIL, "userns-limit", Confidence.PROVED, "user.max_user_namespaces is 0"
    )


NO_PROOF = "the evidence proves no known cause"
OTHERWISE = "expected to fail for userns-limit"
NONE_RAN = dict.fromkeys(SANDBOX, "not-run")


@pytest.mark.parametrize(
    ("outcomes", "expected", "findings", "status", "cause", "reason"),
    [
        ({}, BLOCKED, [], "xpass", None, OTHERWISE),
        # A second cause behind the expected one changes nothing.
        (SANDBOX, BLOCKED, [LIMIT, SYSCTL], "xfail", "userns-limit", SYSCTL.why),
        (SANDBOX, PASSES, [LIMIT], "fail", "userns-limit", LIMIT.why),
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
    findings: list[Finding],
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


@pytest.mark.parametrize("emulated", [True, False])
def test_a_box_too_slow_under_emulation_is_the_labs_fault_and_under_kvm_boxlites(emulated: bool) -> None:
    # boxlite 0.10.8's message in a guest that shared two processors with two other guests.
    message = (
        "engine reported an error: The VM failed to start: timed out after 30s waiting for it to become ready."
    )
    judged = verdict({}, PASSES, messages={"jail_starts": message}, speed=Speed(emulated))
    assert judged.status is (Status.ERROR if emulated else Status.FAIL)
    assert (judged.fault, judged.faulty) == ((Fault.TOO_SLOW, ("jail_starts",)) if emulated else (None, ()))


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
    more: dict[str, Any] = {"cut_short": cut_short, "out_of_time": bool(cut_short)}
    judged = judge(SUITE, tests, PASSES, [], speed=Speed(emulated), hangs_count=hangs_count, **more)
    assert judged.status is status
    is_fault = status is Status.ERROR
    assert (judged.fault is Fault.TIME_LIMIT) is is_fault
    assert (f": {tests[-1].name if test_is_late else SUITE.name}" in judged.reason) is is_fault
    # What the others of such a cell showed holds.
    assert judged.faulty == ((tests[-1].name,) if test_is_late and is_fault else ())


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
    emulated: bool, outcomes: dict[str, str], expected: Expectation, findings: list[Finding], cause: str
) -> None:
    judged = verdict(outcomes, expected, findings, cut_short=CRASHED, speed=Speed(emulated))
    assert (judged.status, judged.cause) == (Status.FAIL, cause)
    assert f"; the suite {CRASHED}" in judged.reason
    assert all(finding.why in judged.reason for finding in findings)
    assert "the control failed" not in judged.reason


def test_a_guest_without_memory_is_the_labs_fault_whatever_else_was_found() -> None:
    killed = ["python3", "boxlite-shim"]
    judged = verdict(SANDBOX, BLOCKED, [LIMIT], cut_short=CRASHED, killed_for_memory=killed)
    assert (judged.status, judged.cause) == (Status.ERROR, None)
    assert "killed python3, boxlite-shim" in judged.reason
    assert "memory_mib" in judged.reason
    assert (judged.fault, judged.faulty) == (Fault.NO_MEMORY, tuple(SANDBOX))


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
    assert judged.faulty == tuple(SUITE.tests)
