"""Derives a cell's status from outcomes and causes, and makes one result of its repeats."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

from lab import causes
from lab.base.wait import ORDINARY, Speed
from lab.catalog import Suite
from lab.record import (
    UNKNOWN,
    CellResult,
    CellVerdict,
    Expectation,
    Fault,
    FoundCause,
    Outcome,
    RepeatResult,
    Status,
    SuiteRun,
    TestRate,
)

# The messages of boxlite 0.10 and of older releases if a box is not up within 30 s. A box whose process had
# died by then was not slow.
TOO_SLOW = re.compile(
    r"timed out after \d+s waiting for it to become ready|Timeout waiting for guest ready"
    r"|failed to start: timeout after \d+s(?!.*shim_alive\s*=\s*false)",
    re.DOTALL,
)
# The message of boxlite 0.9, which makes the system of each box from a registry's image. The suite serves one
# to releases that are known to need it.
NO_REGISTRY = re.compile(r"Failed to pull image '([^']+)'")

# Why such a fault says nothing about the jailer, and what would help.
REASONS = {
    Fault.TOO_SLOW: "the guest was too slow for boxlite's own time limit, which says nothing about the jailer "
    "(it needs a host that is faster, or has less to do): {}",
    Fault.TIME_LIMIT: "the lab's time limit ended it on a slow host, where the guest may have been slow or "
    "hung: {}",
    Fault.NO_REGISTRY: "this build pulls {} from a registry for its boxes, and the guest could not reach "
    "the registry; that says nothing about the jailer (boxlite 0.10 and newer need no registry)",
    # Whatever failed then may have failed for want of memory.
    Fault.NO_MEMORY: "the guest had no memory left, and its kernel killed {}, which says nothing about the "
    "jailer (memory_mib in the guest's definition is what it has)",
}


@dataclass(frozen=True)
class Circumstances:
    """What a suite ran under, where that decides whether a failure is boxlite's, and whether it was expected.

    `guest_causes` are those that the guest has by itself, or the suite everywhere. `speed` is the host's.
    `hangs_count`: a limit of the lab's own that was met on a slow host is boxlite's failure: the suite had more
    time than a slow guest needs, or is compared with another try. `killed_for_memory` are the programs that the
    guest's kernel killed because the guest had no memory left.
    """

    guest_causes: Collection[str] = ()
    speed: Speed = ORDINARY
    hangs_count: bool = False
    killed_for_memory: Sequence[str] = ()


USUAL = Circumstances()


def judge_cell(
    suite: Suite,
    run: SuiteRun,
    expected: Expectation,
    findings: Sequence[FoundCause],
    circumstances: Circumstances = USUAL,
) -> CellVerdict:
    """Return the verdict on a cell that ran.

    On a slow host a guest may be too slow for boxlite's own time limit, or for one of the lab's, where nothing
    tells a slow guest from one that hangs. Then, or if a guest cannot reach a registry or has too little
    memory, the lab is at fault and the status is `error`. No result at all is the lab's fault, too.

    A test that did not run is not covered, so the cell has neither passed nor failed as expected.

    A failure counts as expected only if its first cause is the expected one and exactly those tests failed that
    it must fail, or that one of the guest's own causes must, if that was found, too. Otherwise a known failure
    could hide another one.
    """
    verdict = partial(CellVerdict, causes=list(findings))

    def at_fault(fault: Fault, subject: str, faulty: Iterable[str]) -> CellVerdict:
        reason = REASONS[fault].format(subject)
        return verdict(status=Status.ERROR, reason=reason, fault=fault, faulty=list(faulty))

    if not run.tests:
        return verdict(status=Status.ERROR, reason="no test of the suite has a result")
    messages = {test.name: test.message for test in run.tests if test.outcome.is_failure}
    failed = set(messages)
    not_run = {test.name for test in run.tests if test.outcome is Outcome.NOT_RUN}
    skipped = {test.name for test in run.tests if test.outcome is Outcome.SKIP}
    speed = circumstances.speed
    slow = [name for name, message in messages.items() if TOO_SLOW.search(message)]
    images = {name: image[1] for name, message in messages.items() if (image := NO_REGISTRY.search(message))}
    if speed.is_slow and slow:
        return at_fault(Fault.TOO_SLOW, f"{', '.join(slow)}; {speed}", [*slow, *images])
    if images:
        return at_fault(Fault.NO_REGISTRY, next(iter(images.values())), [*slow, *images])
    if not failed and not not_run and not run.cut_short:
        if skipped:
            return verdict(status=Status.ERROR, reason=f"skipped, so not covered: {', '.join(sorted(skipped))}")
        if expected.status == "xfail":
            return verdict(status=Status.XPASS, reason=f"passed, but was expected to fail for {expected.cause}")
        return verdict(status=Status.PASS)
    if circumstances.killed_for_memory:
        return at_fault(Fault.NO_MEMORY, ", ".join(circumstances.killed_for_memory), messages)
    late = [test.name for test in run.tests if test.out_of_time]
    is_late = bool(late) or run.out_of_time
    if speed.is_slow and not circumstances.hangs_count and is_late:
        return at_fault(Fault.TIME_LIMIT, f"{', '.join(late) or suite.name}; {speed}", late)
    cause, confidence = (findings[0].name, findings[0].confidence) if findings else (UNKNOWN, None)
    reasons = [finding.reason for finding in findings] or [_no_finding(suite, failed, not_run)]
    status = Status.FAIL
    if expected.status == "xfail" and cause != expected.cause:
        reasons.append(f"expected to fail for {expected.cause}")
    elif expected.status == "xfail" and not run.cut_short:
        causes_met = {finding.name for finding in findings} & {expected.cause, *circumstances.guest_causes}
        rows = causes.list_causes()
        broken = set[str]().union(*(suite.needing(rows[name].breaks) for name in causes_met))
        difference = _difference(broken, failed, skipped, not_run)
        status = Status.FAIL if difference else Status.XFAIL
        reasons += [difference] if difference else []
    if run.cut_short:
        reasons.append(f"the suite {run.cut_short}")
    if is_late:
        reasons.append(str(speed))
    return verdict(status=status, cause=cause, confidence=confidence, reason="; ".join(reasons))


def _no_finding(suite: Suite, failed: set[str], not_run: set[str]) -> str:
    if not suite.control:
        return "the evidence proves no known cause, and the suite has no control to compare with"
    if suite.control in failed:
        return f"the control failed too ({suite.control}), so not only the jailer is blocked"
    if suite.control in not_run:
        return f"the evidence proves no known cause, and the control did not run ({suite.control})"
    return "the evidence proves no known cause"


def _difference(expected: set[str], failed: set[str], skipped: set[str], not_run: set[str]) -> str:
    """Describe how the failed tests differ from those that must fail; empty if they do not differ."""
    differences = {
        "skipped, so not covered": skipped,
        "did not run, so not covered": not_run,
        "failed too": failed - expected,
        "passed unexpectedly": expected - failed - skipped - not_run,
    }
    return "; ".join(f"{text}: {', '.join(sorted(names))}" for text, names in differences.items() if names)


CONFIDENCE = 0.95


def combine_repeats(results: Sequence[CellResult], *, at_most: int = 1) -> CellResult:
    """Return the common result if all repeats agree, or else one with status `flaky`.

    `at_most`: how often the suite was to be run.

    Repeats agree if their status, their cause and the outcome of each test are the same. Repeats that failed
    because of the lab are ignored. The details are those of the first unexpected repeat, or else of the first.
    Only the first was predicted.
    """
    detailed = next((result for result in results if not result.status.as_expected), results[0])
    if max(len(results), at_most) == 1:
        return detailed
    completed = [result for result in results if not result.status.could_not_run]
    outcomes = {
        (result.status, result.cause, frozenset((test.name, test.outcome) for test in result.tests))
        for result in completed
    }
    repeats = [_repeat(result) for result in results]
    if len(outcomes) <= 1:
        detailed = next((result for result in results if result.status.could_not_run), detailed)
        verdict = detailed.verdict
    else:
        detailed = next((result for result in completed if not result.status.as_expected), completed[0])
        verdict = CellVerdict(
            status=Status.FLAKY,
            cause=detailed.cause,
            confidence=detailed.verdict.confidence,
            causes=detailed.causes,
            reason=_flaky_reason(repeats),
        )
    suite = detailed.suite.with_values(repeats=repeats, rates=failure_rates(results))
    prediction = next((result.prediction for result in results if result.prediction), None)
    return detailed.with_parts(suite=suite, verdict=verdict).with_values(prediction=prediction)


def _repeat(result: CellResult) -> RepeatResult:
    return RepeatResult(
        status=result.status,
        cause=result.cause,
        reason=result.reason,
        failed=[test.name for test in result.tests if test.outcome is not Outcome.PASS],
        seconds=result.suite.seconds,
        seed=result.suite.seed,
    )


def _flaky_reason(repeats: Sequence[RepeatResult]) -> str:
    completed = [repeat for repeat in repeats if not repeat.status.could_not_run]
    passed = sum(not repeat.failed for repeat in completed)
    low, high = wilson(passed, len(completed))
    each = "; ".join(
        f"{number}: {' '.join(filter(None, [repeat.status, repeat.cause, ', '.join(repeat.failed)]))}"
        for number, repeat in enumerate(repeats, 1)
    )
    return (
        f"all tests passed in {passed} of {len(completed)} repeats "
        f"(95 % confidence interval {low:.0%} to {high:.0%}); {each}"
    )


def failure_rates(results: Sequence[CellResult]) -> list[TestRate]:
    """Return how often each test failed in these repeats. Those that met a fault of the lab say nothing.

    A test that was skipped or did not run in any of them has no rate.
    """
    # Whether each test failed, by the number of the repeat.
    outcomes: dict[str, dict[int, bool]] = {}
    for number, result in enumerate(results, 1):
        for test in () if result.status.could_not_run else result.tests:
            if test.outcome is Outcome.PASS or test.outcome.is_failure:
                outcomes.setdefault(test.name, {})[number] = test.outcome.is_failure
    rates = []
    for name, by_repeat in outcomes.items():
        numbers = [number for number, has_failed in by_repeat.items() if has_failed]
        low, high = (round(end, 4) for end in wilson(len(numbers), len(by_repeat)))
        rates.append(TestRate(name=name, ran=len(by_repeat), failed_in=numbers, low=low, high=high))
    return rates


def has_failure(result: CellResult) -> bool:
    """Whether a test failed in a repeat that says something about boxlite."""
    return not result.status.could_not_run and any(test.outcome.is_failure for test in result.tests)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion, at 95 % confidence.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927). Unlike the normal
    approximation it stays accurate for few trials and for proportions near 0 and 1.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
