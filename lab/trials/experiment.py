"""Experiments: which changes are tried on a cell, which of them turn its outcome, and what that proves.

A change is a setting of the cell's variant left out, or others added to it.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

from lab import catalog
from lab.base.activity import Activity, Progress
from lab.base.errors import NotApplicable
from lab.builds import SuiteOptions
from lab.catalog import Catalog, Change, Variant, knobs
from lab.guest import variant as guest_variant
from lab.guest.variant import NotInEffect
from lab.lane.running import RunningLane
from lab.plan import MOST_EXPERIMENT_SECONDS, Cell
from lab.probes import Facts, SuiteUser
from lab.record import (
    UNKNOWN,
    CellResult,
    CellTrials,
    CellVerdict,
    Confidence,
    Experiment,
    ExperimentPolicy,
    ExperimentTrial,
    Fault,
    FoundCause,
    Outcome,
    RunOptions,
    Status,
    TrialOutcome,
)
from lab.trials.fork import Fork, Tries, find_first_failure, list_evidence_files, list_run_tests


def undoing(variant: Variant) -> list[Change]:
    """One change for each of the variant's settings: that setting left out."""
    return [
        Change(f"{kind} {part.words()}", {kind: part}, without=True)
        for kind, knob in variant.knobs.items()
        for part in knob.parts()
    ]


def leading(variant: Variant, facts: Facts, goal: Facts) -> list[Change]:
    """The single changes that make a cell with these facts more like one with the facts `goal`.

    They are limited to what a knob can set, and leave out what the variant itself sets: see `undoing`.
    """
    changes = []
    for kind, knob in knobs.KINDS.items():
        variant_parts = variant.knobs[kind].parts() if kind in variant.knobs else []
        for setting in knob.leading(facts, goal):
            if not any(part.contradicts(setting) for part in variant_parts):
                changes.append(Change(f"{kind} {setting.words()}", {kind: setting}))
    return changes


def of_catalog(definitions: Catalog) -> list[Change]:
    """The variants with a single kind of setting; those that are expected to pass come first."""
    single = [variant for variant in definitions.variants.values() if len(variant.knobs) == 1]
    single.sort(key=lambda variant: variant.expect.cause is not None)
    return [Change(variant.name, variant.knobs) for variant in single]


def smallest[T](elements: Sequence[T], does: Callable[[Sequence[T]], bool]) -> list[T]:
    """A part of `elements` that still `does` it, and from which no element can be left out.

    `elements` itself is known to do it and is not asked. This is ddmin of A. Zeller and R. Hildebrandt,
    Simplifying and Isolating Failure-Inducing Input (IEEE Transactions on Software Engineering 28, 2002): ever
    smaller chunks are tried alone, then everything but each of them.
    """
    part, count = list(elements), 2
    while len(part) > 1:
        # Chunks of nearly the same length.
        ends = [len(part) * number // count for number in range(count + 1)]
        chunks = [part[start:end] for start, end in pairwise(ends)]
        if single := next((chunk for chunk in chunks if does(chunk)), None):
            part, count = single, 2
            continue
        # With two chunks, each is the rest of the other.
        remainders = [part[:start] + part[end:] for start, end in pairwise(ends)] if count > 2 else []
        if remainder := next((remainder for remainder in remainders if does(remainder)), None):
            part, count = remainder, count - 1
            continue
        if count >= len(part):
            break
        count = min(2 * count, len(part))
    return part


FOLDER = "experiment"


class Stopped(Exception):
    """No further fork is made; the text says why."""


@dataclass
class TrialAttempt:
    """Changes made to the cell in one fork. `observation` is what the guest showed then, if it was asked."""

    running: RunningLane
    cell: Cell
    tests: Sequence[str]
    changes: Sequence[Change]
    folder: Path
    observation: tuple[Facts, SuiteUser] | None = None
    fault: Fault | None = None

    def run(self) -> tuple[TrialOutcome, str]:
        """Run the tests that decide."""
        variant = reduce(lambda so_far, change: change.on(so_far), self.changes, self.cell.variant)
        fork = Fork.make(self.running, replace(self.cell, variant=variant), self.folder)
        suite_run = fork.run(SuiteOptions(tests=self.tests, to_first_failure=True))
        # What cut a suite short may be told by the kernel's log alone.
        fork.gather(full=bool(suite_run.cut_short))
        verdict, failure = fork.judge(suite_run), find_first_failure(suite_run)
        self.fault = verdict.fault
        missing = set(self.tests) - {test.name for test in list_run_tests(suite_run)}
        if verdict.status is Status.FAIL:
            reason = f"{failure.name}: {failure.message}" if failure else verdict.reason
            outcome = TrialOutcome.FAILS
        elif verdict.status is not Status.PASS:
            outcome, reason = TrialOutcome.ERROR, verdict.reason
        elif missing:
            outcome, reason = TrialOutcome.ERROR, f"did not run: {', '.join(sorted(missing))}"
        else:
            outcome, reason = TrialOutcome.PASSES, ""
        if not self.changes or outcome is TrialOutcome.PASSES:
            self.observation = fork.facts, guest_variant.read_suite_user(self.running.session, variant)
        return outcome, reason


@dataclass
class Series:
    """The forks of one experiment. `tests` are those that decide.

    `observations` are what the guest showed in trials that pass and in the first one, by the names of their
    changes.
    """

    retries: int
    running: RunningLane
    cell: Cell
    tests: Sequence[str]
    trials: list[ExperimentTrial] = field(default_factory=list)
    observations: dict[tuple[str, ...], tuple[Facts, SuiteUser]] = field(default_factory=dict)
    _start: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return self.running.work.folder / self.cell.folder / FOLDER

    def outcome(self, changes: Sequence[Change]) -> TrialOutcome:
        """What these changes lead to. A trial that was made before is not made again.

        Raises Stopped if no more forks can be made, LaneDied if the run is interrupted.
        """
        names = [str(change) for change in changes]
        if earlier := next((trial for trial in self.trials if trial.changes == names), None):
            return earlier.outcome
        self.running.lane.check_wanted()
        if not self.running.lane.is_alive:
            raise Stopped("the machine is gone")
        if time.monotonic() - self._start >= MOST_EXPERIMENT_SECONDS:
            raise Stopped(f"the budget of {MOST_EXPERIMENT_SECONDS:.0f} s is used up")
        text = f"{self.cell.variant.name}: experiment: {' and '.join(names) or 'as it is'}"
        self.running.show(Progress(text, Activity.TRIALS))
        start = time.monotonic()
        impossible = (NotApplicable, NotInEffect)
        tries = Tries(self.running, self.retries, TrialOutcome.CANNOT, TrialOutcome.ERROR, impossible)
        # A trial surprises if it fails otherwise than the unchanged cell does. A box may die for its own
        # reasons, as now and then under emulation; none passes by chance.
        unchanged = self.trials[0].reason if self.trials else None
        conclusion = tries.run(
            lambda folder: TrialAttempt(self.running, self.cell, self.tests, changes, folder),
            self.folder / f"{len(self.trials) + 1:02}",
            is_surprising=lambda outcome, reason, _: (
                outcome is TrialOutcome.FAILS and unchanged is not None and reason != unchanged
            ),
        )
        if observation := conclusion.attempt.observation:
            self.observations[tuple(names)] = observation
        trial = ExperimentTrial(
            changes=names,
            outcome=conclusion.outcome,
            reason=conclusion.reason,
            seconds=round(time.monotonic() - start, 2),
            retried=tries.retried,
            bug=tries.bug,
        )
        self.trials.append(trial)
        return trial.outcome

    def list_changes(self, outcome: TrialOutcome) -> list[list[str]]:
        """The changes of each trial with this outcome; the unchanged cell has none."""
        return [trial.changes for trial in self.trials if trial.outcome is outcome]

    def passes(self, changes: Sequence[Change]) -> bool:
        return self.outcome(changes) is TrialOutcome.PASSES

    def one_passes(self, possible: Sequence[Change]) -> bool:
        """Try each of these alone, up to the first with which the cell passes. Raises Stopped."""
        return any(self.passes([change]) for change in possible)

    def record(self, turning: list[list[str]], *, stopped: str, compared_with: str = "") -> Experiment:
        """All that was done, with what it showed."""
        return Experiment(
            tests=list(self.tests),
            compared_with=compared_with,
            trials=self.trials,
            turning=turning,
            stopped=stopped,
            seconds=round(sum(trial.seconds for trial in self.trials), 2),
            evidence=list_evidence_files(self.folder, self.running.work.folder),
        )


def add_experiment(
    options: RunOptions,
    running: RunningLane,
    cell: Cell,
    result: CellResult,
    passing: Sequence[CellResult],
) -> CellResult:
    """A cell's result with what an experiment on it found, if one is wanted.

    `passing`: the cells of the same build that passed so far. No fault of the lab is raised: the record says
    what it kept from being tried. The lane may be dead afterwards.
    """
    if not wants_experiment(options, result):
        return result
    suite = cell.build.suite
    failed = [
        test.name for test in result.tests if test.outcome is not Outcome.PASS and test.name in suite.tests
    ]
    series = Series(options.retries, running, cell, failed or suite.telling)
    shutil.rmtree(series.folder, ignore_errors=True)  # From a lane that died.
    definitions = catalog.load_catalog()
    if result.status is Status.PASS:
        experiment, verdict = _find_breaking(series, definitions), result.verdict
    else:
        experiment = _find_turning(series, definitions, result, passing)
        verdict = _conclude(result.verdict, experiment, series, definitions)
    trials = CellTrials(remedies=result.remedies, experiment=experiment)
    return result.with_parts(verdict=verdict, trials=trials)


def wants_experiment(options: RunOptions, result: CellResult) -> bool:
    """Whether an experiment is to be made on a cell. One that did as expected has none unless that is asked."""
    policy, status = options.experiments, result.status
    if result.trials.experiment is not None:
        return False
    if policy is ExperimentPolicy.ALWAYS:
        return status.failed or status is Status.PASS
    unclear = result.cause == UNKNOWN or result.verdict.confidence is Confidence.LIKELY
    return policy is ExperimentPolicy.UNCLEAR and status is Status.FAIL and unclear


def _find_breaking(series: Series, definitions: Catalog) -> Experiment:
    """Which single variants of the catalog break a cell that passed; those expected to break it come first."""
    candidates = list(reversed(of_catalog(definitions)))
    stop_reason = ""
    try:
        _check_unchanged(series, TrialOutcome.PASSES)
        for change in _applicable(series, candidates):
            series.outcome([change])
    except Stopped as stop:
        stop_reason = str(stop)
    breaking = series.list_changes(TrialOutcome.FAILS)
    return series.record(list(filter(None, breaking)), stopped=stop_reason)


def _find_turning(
    series: Series, definitions: Catalog, result: CellResult, passing: Sequence[CellResult]
) -> Experiment:
    """The smallest set of changes with which the failed tests pass.

    First come the changes that lead to a cell known to pass: they tell why. A variant of the catalog that
    happens to help tells less, and many of them contradict each other: each is tried alone, and last.
    """
    facts, variant = result.facts, series.cell.variant
    cells = [
        (neighbour, leading(variant, facts, neighbour.facts))
        for neighbour in passing
        if facts and neighbour.facts and neighbour.facts.arch == facts.arch
    ]
    # The passing cell most like this one, best of the same guest, and the changes that lead to it.
    nearest_cell = min(
        cells,
        key=lambda entry: (entry[0].guest != result.guest, len(entry[1])),
        default=None,
    )
    neighbour, leads = nearest_cell or (None, [])
    nearest, rest_of_catalog = [*undoing(variant), *leads], of_catalog(definitions)
    stop_reason = ""
    try:
        _check_unchanged(series, TrialOutcome.FAILS)
        first = _applicable(series, nearest)
        if not series.one_passes(first):
            if len(first) > 1 and series.passes(first):
                # The smallest part of them that passes is then among the trials.
                smallest(first, series.passes)
            else:
                series.one_passes(_applicable(series, rest_of_catalog))
    except Stopped as stop:
        stop_reason = str(stop)
    turned = filter(None, series.list_changes(TrialOutcome.PASSES))
    turning = sorted(turned, key=len)[:1]
    if turning and not _is_smallest(series, turning[0]):
        stop_reason = stop_reason or "not shown to fail without each of these changes"
    compared_with = f"{neighbour.guest}/{neighbour.variant}" if neighbour else ""
    return series.record(turning, stopped=stop_reason, compared_with=compared_with)


def _is_smallest(series: Series, turning: Sequence[str]) -> bool:
    """Whether the cell was seen to fail with each of these changes left out: a fork may have met a fault."""
    failed = series.list_changes(TrialOutcome.FAILS)
    return all([change for change in turning if change != omitted] in failed for omitted in turning)


def _check_unchanged(series: Series, expected: TrialOutcome) -> None:
    """Raise Stopped if the unchanged cell, run once more, behaves differently or cannot be run."""
    outcome = series.outcome([])
    if outcome is expected:
        return
    behaviour = ": ".join(filter(None, [str(outcome), series.trials[0].reason]))
    raise Stopped(f"the unchanged cell was run once more and behaved differently: {behaviour}")


def _applicable(series: Series, candidates: Sequence[Change]) -> list[Change]:
    return [change for change in candidates if _is_applicable(series, change)]


def _is_applicable(series: Series, change: Change) -> bool:
    """Whether the change makes sense on the cell, which was run unchanged before, and changes something."""
    if change.wants_own_machine:
        return False
    settings = change.settings.values()
    return change.without or (
        not any(knob.why_not(series.running.facts) for knob in settings)
        and any(knob.differences(*series.observations[()]) for knob in settings)
    )


def _conclude(
    verdict: CellVerdict, experiment: Experiment, series: Series, definitions: Catalog
) -> CellVerdict:
    """The verdict on a failed cell with what its experiment proves.

    A cause that was only likely is proved if the smallest change that turned the outcome took back settings
    that cause it according to the catalog. An unknown cause stays unknown: no rule's evidence supports one.
    """
    if not experiment.turning:
        return verdict
    [turning] = experiment.turning
    conclusion = f"by experiment, what failed passes {' and '.join(turning)}"
    unchanged, turned = series.observations[()], series.observations[tuple(turning)]
    is_smallest = _is_smallest(series, turning)

    def is_taken_back(cause: str) -> bool:
        makers = [variant for variant in definitions.variants.values() if variant.expect.cause == cause]
        return any(_is_in_effect(maker, *unchanged) and not _is_in_effect(maker, *turned) for maker in makers)

    causes = [
        FoundCause(name=finding.name, confidence=Confidence.PROVED, reason=f"{finding.reason}; {conclusion}")
        if finding.confidence is Confidence.LIKELY and is_smallest and is_taken_back(finding.name)
        else finding
        for finding in verdict.causes
    ]
    is_told = causes != verdict.causes or verdict.cause == UNKNOWN
    return verdict.with_values(
        confidence=causes[0].confidence if causes else verdict.confidence,
        causes=causes,
        reason=f"{verdict.reason}; {conclusion}" if is_told else verdict.reason,
    )


def _is_in_effect(variant: Variant, facts: Facts, user: SuiteUser) -> bool:
    """Whether the guest is as the variant would have it."""
    knobs = variant.knobs.values()
    return bool(knobs) and not any(knob.differences(facts, user) for knob in knobs)
