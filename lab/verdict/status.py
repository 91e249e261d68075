"""From outcomes and cause to the status of a cell."""

import re
from dataclasses import dataclass

from lab import causes
from lab.catalog import Suite
from lab.record import UNKNOWN, Confidence, Expectation, Finding, Needs, Outcome, Status, TestResult

# boxlite 0.10's words when a box is not up within 30 s, and those of older releases.
TOO_SLOW = re.compile(r"timed out after \d+s waiting for it to become ready|Timeout waiting for guest ready")
SLOW_REASON = (
    "the emulated guest was too slow for boxlite's own time limit, which says nothing about the jailer "
    "(run fewer guests at once: --jobs 1)"
)

# boxlite 0.9.5's words: it makes a box's own system from an image of a registry, whatever the box's root is.
NO_REGISTRY = re.compile(r"Failed to pull image '([^']+)'")
NO_REGISTRY_REASON = (
    "this build pulls {image} from a registry for its boxes, which the guest could not do; "
    "that says nothing about the jailer (boxlite 0.10 and newer bring all that they need)"
)


@dataclass(frozen=True)
class Verdict:
    """The status of a cell with what explains it."""

    status: Status
    cause: str | None = None
    confidence: Confidence | None = None
    reason: str = ""


def judge(
    suite: Suite,
    tests: list[TestResult],
    expected: Expectation,
    findings: list[Finding],
    *,
    killed: bool = False,
    emulated: bool = False,
) -> Verdict:
    """The status of a cell that ran.

    In an emulated guest a box that misses boxlite's own time limit is the lab's fault: an error. So is a
    registry that a guest cannot reach.

    A test that did not run counts as failed: it is never taken for a pass.

    A failure counts as expected only when its first cause is the expected one and exactly the tests failed that
    the causes found must fail: anything else would hide a second failure behind a known one.
    """
    failed = {test.name for test in tests if test.outcome not in (Outcome.PASS, Outcome.SKIP)}
    skipped = {test.name for test in tests if test.outcome is Outcome.SKIP}
    slow = [test.name for test in tests if test.name in failed and TOO_SLOW.search(test.message)]
    if emulated and slow:
        return Verdict(Status.ERROR, reason=f"{SLOW_REASON}: {', '.join(slow)}")
    pulls = [match for test in tests if test.name in failed and (match := NO_REGISTRY.search(test.message))]
    if pulls:
        return Verdict(Status.ERROR, reason=NO_REGISTRY_REASON.format(image=pulls[0][1]))
    if not failed and not killed:
        return _without_failure(skipped, expected)
    cause = findings[0].name if findings else UNKNOWN
    confidence = findings[0].confidence if findings else None
    reasons = [finding.why for finding in findings] or [_no_finding(suite, failed)]
    status = Status.FAIL
    if expected.status == "xfail" and cause == expected.cause and not killed:
        difference = _difference(suite.needing(_broken(findings)), failed, skipped)
        status = Status.FAIL if difference else Status.XFAIL
        reasons += [difference] if difference else []
    elif expected.status == "xfail" and cause != expected.cause:
        reasons.append(f"expected to fail for {expected.cause}")
    if killed:
        reasons.append("the suite was killed at its time limit")
    return Verdict(status, cause, confidence, "; ".join(reasons))


def _without_failure(skipped: set[str], expected: Expectation) -> Verdict:
    if skipped:
        names = ", ".join(sorted(skipped))
        return Verdict(Status.ERROR, reason=f"skipped, which is no coverage: {names}")
    if expected.status == "xfail":
        return Verdict(Status.XPASS, reason=f"passed, but was expected to fail for {expected.cause}")
    return Verdict(Status.PASS)


def _no_finding(suite: Suite, failed: set[str]) -> str:
    if suite.control in failed:
        return f"the control failed too ({suite.control}): not the jailer alone"
    return "the evidence proves no known cause"


def _broken(findings: list[Finding]) -> Needs:
    """What no test can have any more: the least that one of these causes breaks."""
    known = causes.known()
    return min((known[finding.name].breaks for finding in findings), key=list(Needs).index)


def _difference(expected: set[str], failed: set[str], skipped: set[str]) -> str:
    """How the failed tests differ from those that must fail, or nothing."""
    parts = [f"skipped, which is no coverage: {', '.join(sorted(skipped))}"] if skipped else []
    if more := failed - expected:
        parts.append(f"failed too: {', '.join(sorted(more))}")
    if less := expected - failed - skipped:
        parts.append(f"passed all the same: {', '.join(sorted(less))}")
    return "; ".join(parts)
