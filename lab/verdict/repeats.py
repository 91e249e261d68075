"""A cell that was run several times: one result of them all."""

from collections.abc import Sequence
from statistics import NormalDist

from lab.record import CellResult, RepeatResult, Status

CONFIDENCE = 0.95


def combine(results: Sequence[CellResult]) -> CellResult:
    """The one result where all repeats agree, and `flaky` where they do not.

    They agree when status, cause and the outcome of each test are the same; one that met a fault of the lab's
    own says nothing. What is kept in detail is the first repeat that is not as expected, or the first.
    """
    shown = next((result for result in results if not result.status.as_expected), results[0])
    if len(results) == 1:
        return shown
    repeats = [
        RepeatResult(
            status=result.status,
            cause=result.cause,
            reason=result.reason,
            failed=[test.name for test in result.tests if test.outcome != "pass"],
            seconds=result.seconds,
        )
        for result in results
    ]
    update: dict[str, object] = {"repeats": repeats}
    told = [result for result in results if not result.status.could_not_run]
    if len({_outcome(result) for result in told}) <= 1:
        fault = next((result for result in results if result.status.could_not_run), None)
        return (fault or shown).model_copy(update=update)
    passed = sum(not repeat.failed for repeat in repeats if not repeat.status.could_not_run)
    low, high = wilson(passed, len(told))
    shown = next((result for result in told if not result.status.as_expected), told[0])
    update["status"] = Status.FLAKY
    update["reason"] = (
        f"all tests passed in {passed} of {len(told)} repeats "
        f"(95 % confidence interval {low:.0%} to {high:.0%}); "
        + "; ".join(f"{number}: {_words(repeat)}" for number, repeat in enumerate(repeats, 1))
    )
    return shown.model_copy(update=update)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval for a proportion, at 95 % confidence.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927). Unlike the normal
    approximation it keeps its level for few trials and for proportions near 0 and 1.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _words(repeat: RepeatResult) -> str:
    return " ".join(filter(None, [repeat.status, repeat.cause, ", ".join(repeat.failed)]))


def _outcome(result: CellResult) -> tuple[object, ...]:
    return result.status, result.cause, frozenset((test.name, test.outcome) for test in result.tests)
