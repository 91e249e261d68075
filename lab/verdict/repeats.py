"""Combines the repeats of a cell into one result."""

from collections.abc import Sequence
from statistics import NormalDist

from lab.record import CellResult, Outcome, RepeatResult, Status, TestRate

CONFIDENCE = 0.95


def combine(results: Sequence[CellResult], *, wanted: int = 1) -> CellResult:
    """Return the common result if all repeats agree, or else one with status `flaky`.

    `wanted`: how often the suite was to be run, at most.

    Repeats agree if their status, their cause and the outcome of each test are the same. Repeats that failed
    because of the lab are ignored. The details are those of the first unexpected repeat, or else of the first.
    """
    shown = next((result for result in results if not result.status.as_expected), results[0])
    if max(len(results), wanted) == 1:
        return shown
    repeats = [
        RepeatResult(
            status=result.status,
            cause=result.cause,
            reason=result.reason,
            failed=[test.name for test in result.tests if test.outcome != "pass"],
            seconds=result.seconds,
            seed=result.seed,
        )
        for result in results
    ]
    update: dict[str, object] = {"repeats": repeats, "rates": rates(results)}
    completed = [result for result in results if not result.status.could_not_run]
    if len({_outcome(result) for result in completed}) <= 1:
        fault = next((result for result in results if result.status.could_not_run), None)
        return (fault or shown).model_copy(update=update)
    passed = sum(not repeat.failed for repeat in repeats if not repeat.status.could_not_run)
    low, high = wilson(passed, len(completed))
    shown = next((result for result in completed if not result.status.as_expected), completed[0])
    update["status"] = Status.FLAKY
    update["reason"] = (
        f"all tests passed in {passed} of {len(completed)} repeats "
        f"(95 % confidence interval {low:.0%} to {high:.0%}); "
        + "; ".join(f"{number}: {_describe(repeat)}" for number, repeat in enumerate(repeats, 1))
    )
    return shown.model_copy(update=update)


def rates(results: Sequence[CellResult]) -> list[TestRate]:
    """Return how often each test failed in these repeats. Those that met a fault of the lab say nothing.

    A test that was skipped or did not run in any of them has no rate.
    """
    failed_in: dict[str, list[int]] = {}
    ran: dict[str, int] = {}
    for number, result in enumerate(results, 1):
        for test in () if result.status.could_not_run else result.tests:
            if test.outcome is Outcome.PASS or test.outcome.is_failure:
                ran[test.name] = ran.get(test.name, 0) + 1
                failed_in.setdefault(test.name, []).extend([number] if test.outcome.is_failure else [])
    return [_rate(name, ran[name], numbers) for name, numbers in failed_in.items()]


def has_failure(result: CellResult) -> bool:
    """Whether a test failed in a repeat that says something about boxlite."""
    return not result.status.could_not_run and any(test.outcome.is_failure for test in result.tests)


def _rate(name: str, ran: int, failed_in: list[int]) -> TestRate:
    low, high = wilson(len(failed_in), ran)
    return TestRate(name=name, ran=ran, failed_in=failed_in, low=round(low, 4), high=round(high, 4))


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


def _describe(repeat: RepeatResult) -> str:
    return " ".join(filter(None, [repeat.status, repeat.cause, ", ".join(repeat.failed)]))


def _outcome(result: CellResult) -> tuple[object, ...]:
    return result.status, result.cause, frozenset((test.name, test.outcome) for test in result.tests)
