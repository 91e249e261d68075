"""Experiments: which changes are tried on a cell, which of them turn its outcome, and what that proves."""

from collections.abc import Sequence

from lab import catalog
from lab.catalog import Catalog, Variant
from lab.lane.cell import CellRunner
from lab.plan import Cell
from lab.probes import Facts, SuiteUser
from lab.record import (
    UNKNOWN,
    CellResult,
    Confidence,
    Experiment,
    ExperimentPolicy,
    Finding,
    NotTried,
    Outcome,
    Status,
    StepOutcome,
)
from lab.trials import changes
from lab.trials.changes import Change
from lab.trials.ddmin import smallest
from lab.trials.policy import Policy
from lab.trials.series import Series, Steps, Stopped


def with_experiment(
    policy: Policy,
    runner: CellRunner,
    cell: Cell,
    result: CellResult,
    passing: Sequence[CellResult],
    so_far: Steps | None = None,
) -> CellResult:
    """A cell's result with what an experiment on it found, if one is wanted.

    `passing`: the cells of the same build that passed so far; `so_far`: the steps made on a lane that died. No
    fault of the lab is raised: the record says what it kept from being tried. The lane may be dead afterwards.
    """
    if not is_wanted(policy, result):
        return result
    so_far = so_far or Steps()
    so_far.forget_faults()
    suite = cell.build.suite
    failed = [
        each.name for each in result.tests if each.outcome is not Outcome.PASS and each.name in suite.tests
    ]
    series = Series(policy, runner, cell, failed or suite.telling, so_far)
    known = catalog.load()
    if result.status is Status.PASS:
        return result.model_copy(update={"experiment": _find_breaking(series, known)})
    made = _find_turning(series, known, result, passing)
    return _with_conclusion(result.model_copy(update={"experiment": made}), series, known)


def is_wanted(policy: Policy, result: CellResult) -> bool:
    """Whether an experiment is to be made on a cell."""
    when = policy.experiments
    if result.experiment is not None:
        return False
    failed = result.status in (Status.FAIL, Status.XFAIL)
    if when is ExperimentPolicy.ALWAYS:
        return failed or result.status is Status.PASS
    unclear = result.cause == UNKNOWN or result.confidence is Confidence.LIKELY
    return when is ExperimentPolicy.UNCLEAR and failed and unclear


def _find_breaking(series: Series, known: Catalog) -> Experiment:
    """Which single variants of the catalog break a cell that passed; those expected to break it come first."""
    candidates = list(reversed(changes.of_catalog(known)))
    stopped = ""
    try:
        _check_unchanged(series, StepOutcome.PASSES)
        for change in _applicable(series, candidates):
            series.outcome([change])
    except Stopped as why:
        stopped = str(why)
    broke = [step.changes for step in series.steps if step.changes and step.outcome is StepOutcome.FAILS]
    not_tried = _not_tried(series, candidates, stopped)
    return series.record(turning=broke, not_tried=not_tried, stopped=stopped)


def _find_turning(
    series: Series, known: Catalog, result: CellResult, passing: Sequence[CellResult]
) -> Experiment:
    """The smallest set of changes with which the failed tests pass.

    First come the changes that lead to a cell known to pass: they tell why. A variant of the catalog that
    happens to help tells less, and many of them contradict each other: each is tried alone, and last.
    """
    near = nearest(result, series.cell.variant, passing)
    other, leads = near or (None, [])
    own, others = [*changes.undoing(series.cell.variant), *leads], changes.of_catalog(known)
    stopped = ""
    try:
        _check_unchanged(series, StepOutcome.FAILS)
        first = _applicable(series, own)
        if not _passes_alone(series, first) and not _pass_together(series, first):
            _passes_alone(series, _applicable(series, others))
    except Stopped as why:
        stopped = str(why)
    turned = [step.changes for step in series.steps if step.changes and step.outcome is StepOutcome.PASSES]
    turning = sorted(turned, key=len)[:1]
    not_tried = _not_tried(series, [*own, *others], stopped or "something else let it pass before")
    if turning and not _is_smallest(series, turning[0]):
        reason = stopped or "it was not seen to fail without each of them"
        not_tried.append(NotTried(change="fewer of those that let it pass together", reason=reason))
    compared_with = f"{other.guest}/{other.variant}" if other else ""
    return series.record(compared_with=compared_with, turning=turning, not_tried=not_tried, stopped=stopped)


def _passes_alone(series: Series, possible: Sequence[Change]) -> bool:
    return any(series.passes([change]) for change in possible)


def _pass_together(series: Series, possible: Sequence[Change]) -> bool:
    """Whether all of these together let it pass; if so, the smallest part that does is then in the steps."""
    if len(possible) < 2 or not series.passes(possible):
        return False
    smallest(possible, series.passes)
    return True


def _is_smallest(series: Series, turning: Sequence[str]) -> bool:
    """Whether the cell was seen to fail with each of these changes left out: a fork may have met a fault."""
    failed = [step.changes for step in series.steps if step.outcome is StepOutcome.FAILS]
    return all([each for each in turning if each != left_out] in failed for left_out in turning)


def _check_unchanged(series: Series, expected: StepOutcome) -> None:
    """Raise Stopped if the unchanged cell, run once more, behaves differently or cannot be run."""
    outcome = series.outcome([])
    if outcome is expected:
        return
    said = ": ".join(filter(None, [str(outcome), series.steps[0].reason]))
    raise Stopped(f"the cell was run once more, unchanged, and not as before: {said}")


def _applicable(series: Series, candidates: Sequence[Change]) -> list[Change]:
    return [change for change in candidates if _why_not(series, change) is None]


def _why_not(series: Series, change: Change) -> str | None:
    """Why the change cannot be tried on the cell, which was run unchanged before; None if it can."""
    if change.wants_own_machine:
        return "it needs a machine that is booted for it"
    if change.without:
        return None
    settings = change.settings.values()
    if reason := next(filter(None, (knob.why_not(series.runner.running.facts) for knob in settings)), None):
        return reason
    is_so = not any(knob.differences(*series.seen[()]) for knob in settings)
    return "it is so already" if is_so else None


def _not_tried(series: Series, candidates: Sequence[Change], why: str) -> list[NotTried]:
    """Each candidate that was not tried alone; `why`, if only the experiment's end kept it from that."""
    tried = {step.changes[0] for step in series.steps if len(step.changes) == 1}
    return [
        NotTried(change=str(change), reason=(_why_not(series, change) if series.seen else None) or why)
        for change in candidates
        if str(change) not in tried
    ]


def nearest(
    result: CellResult, wanted: Variant, passing: Sequence[CellResult]
) -> tuple[CellResult, list[Change]] | None:
    """The passing cell most like this one, best of the same guest, and the changes that lead to it.

    None if nothing is known of any.
    """
    here = result.facts
    found = [(other, changes.leading(wanted, here, other.facts)) for other in passing if here and other.facts]
    return min(found, key=lambda each: (each[0].guest != result.guest, len(each[1])), default=None)


def _with_conclusion(result: CellResult, series: Series, known: Catalog) -> CellResult:
    """A failed cell with what its experiment proves.

    A cause that was only likely is proved if the smallest change that turned the outcome took back settings
    that cause it according to the catalog. An unknown cause stays unknown: no rule's evidence supports one.
    """
    assert result.experiment is not None
    if not result.experiment.turning:
        return result
    [turning] = result.experiment.turning
    said = f"by experiment, what failed passes {' and '.join(turning)}"
    before, after = series.seen[()], series.seen[tuple(turning)]
    smallest_one = _is_smallest(series, turning)

    def taken_back(cause: str) -> bool:
        makes = [each for each in known.variants.values() if each.expect.cause == cause]
        return any(_is_in_effect(each, *before) and not _is_in_effect(each, *after) for each in makes)

    causes = [
        Finding(name=found.name, confidence=Confidence.PROVED, why=f"{found.why}; {said}")
        if found.confidence is Confidence.LIKELY and smallest_one and taken_back(found.name)
        else found
        for found in result.causes
    ]
    update: dict[str, object] = {"causes": causes}
    if causes != result.causes or result.cause == UNKNOWN:
        update["reason"] = f"{result.reason}; {said}"
    if causes:
        update["confidence"] = causes[0].confidence
    return result.model_copy(update=update)


def _is_in_effect(wanted: Variant, facts: Facts, who: SuiteUser) -> bool:
    """Whether the guest is as the variant would have it."""
    knobs = wanted.knobs.values()
    return bool(knobs) and not any(knob.differences(facts, who) for knob in knobs)
