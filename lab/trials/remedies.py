"""Remedies tried on a cell that failed: each in a fresh fork of it, with its variant still in effect."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lab import remedies
from lab.base.stopwatch import Stopwatch
from lab.lane.cell import CellRunner
from lab.plan import Cell
from lab.record import CellResult, RemedyOutcome, RemedyResult, Status
from lab.remedies import AND, Remedy
from lab.trials.fork import Tries, evidence_files
from lab.trials.policy import Policy
from lab.trials.remedy_attempt import RemedyAttempt, is_surprising
from lab.trials.sharing import Share, on_one_lane

FOLDER = "remedies"


@dataclass(frozen=True)
class Trial:
    """What came of remedies on a cell."""

    remedies: tuple[Remedy, ...]
    result: RemedyResult

    def lifted(self, cause: str) -> bool:
        """Whether the evidence no longer shows this cause; False if nobody looked."""
        return self.result.causes is not None and cause not in self.result.causes


def keep_nothing(_result: RemedyResult) -> None:
    """Write down nothing before all trials are made."""


def is_wanted(policy: Policy, result: CellResult) -> bool:
    """Whether remedies are to be tried on a cell."""
    return result.status in (Status.FAIL, Status.XFAIL) and bool(policy.remedies)


def with_remedies(
    policy: Policy,
    runner: CellRunner,
    cell: Cell,
    result: CellResult,
    keep: Callable[[RemedyResult], None] = keep_nothing,
    share: Share[Trial] | None = None,
) -> CellResult:
    """A cell's result with what its remedies did, if it failed for a known cause.

    Remedies that the result has already are not tried again. `keep` is called with what came of each that is
    tried, from any lane's thread, unless it met a fault. `share` may have other lanes make some of the trials.
    No fault of the lab is raised: the results say what it kept from being tried. The lane may be dead
    afterwards.
    """
    if not is_wanted(policy, result):
        return result
    trials = Trials(policy, runner, cell, result, keep, share or on_one_lane(runner))
    return result.model_copy(update={"remedies": trials.all()})


@dataclass(frozen=True)
class Trials:
    """All trials of one cell. `before` is its result before them; the remedies in it are not tried again.

    `runner` is that of the cell's own lane; `share` makes trials that do not depend on each other.
    """

    policy: Policy
    runner: CellRunner
    cell: Cell
    before: CellResult
    keep: Callable[[RemedyResult], None]
    share: Share[Trial]

    def all(self) -> list[RemedyResult]:
        """Try every candidate, the one that gives up least first, and then combinations."""
        found = [finding.name for finding in self.before.causes]
        tried = self._alone(remedies.candidates(self.policy.remedies, found))
        tried += self._combinations(found, tried)
        results = [trial.result for trial in tried]
        # A combination that nothing leads to now was tried all the same.
        names = {result.name for result in results}
        return results + [result for result in self.before.remedies if result.name not in names]

    def _alone(self, candidates: Sequence[Remedy]) -> list[Trial]:
        """Each of these by itself."""
        known = {each.name: self._known((each,)) for each in candidates}
        left = [each for each in candidates if known[each.name] is None]
        made = iter(self.share([partial(self._make, these=(each,)) for each in left]))
        return [known[each.name] or next(made) for each in candidates]

    def _combinations(self, found: Sequence[str], alone: Sequence[Trial]) -> list[Trial]:
        """If none cures alone: the cheapest that lifts the first cause, then on top what lifts the next one."""
        if any(trial.result.result is RemedyOutcome.VERIFIED for trial in alone):
            return []
        tried: list[Trial] = []
        base = next((trial for trial in alone if trial.lifted(found[0])), None)
        while base is not None and (left := base.result.causes):
            more = self._on_top(base, left[0])
            tried += more
            base = more[-1] if more and more[-1].lifted(left[0]) else None
        return tried

    def _on_top(self, base: Trial, cause: str) -> list[Trial]:
        """The candidates for a remaining cause, each together with `base`, up to the first that lifts it."""
        tried: list[Trial] = []
        for each in remedies.candidates(self.policy.remedies, [cause]):
            if each.host is None or each in base.remedies:
                continue
            tried.append(self._try((*base.remedies, each)))
            if tried[-1].lifted(cause):
                break
        return tried

    def _try(self, these: tuple[Remedy, ...]) -> Trial:
        return self._known(these) or self._make(self.runner, these)

    def _known(self, these: tuple[Remedy, ...]) -> Trial | None:
        """What came of these before, or why they are not tried at all; None if they are to be tried."""
        name = _name(these)
        if before := next((result for result in self.before.remedies if result.name == name), None):
            return Trial(these, before)
        if reason := "; ".join(self._not_judged(these)):
            result = RemedyResult(
                name=name, result=RemedyOutcome.NOT_JUDGED, reason=reason, price=_price(these)
            )
            return Trial(these, result)
        return None

    def _make(self, runner: CellRunner, these: tuple[Remedy, ...]) -> Trial:
        """Try these on a lane."""
        name = _name(these)
        runner.guest.say(f"{self.cell.variant.name}: trying {name}")
        folder = runner.folder / self.cell.folder / FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)  # From a lane that died.
        start = time.monotonic()
        watch = Stopwatch()
        tries = Tries(runner, self.policy.retries, RemedyOutcome.CANNOT, RemedyOutcome.ERROR)
        tried = tries.run(
            lambda here: RemedyAttempt(runner, self.cell, self.before, these, here, watch),
            folder,
            is_surprising=is_surprising,
        )
        disagreed = len(tried.attempts) > 1 and tried.outcome is RemedyOutcome.ERROR
        result = RemedyResult(
            name=name,
            result=tried.outcome,
            reason=tried.reason,
            price=_price(these),
            seconds=round(time.monotonic() - start, 2),
            steps=watch.seconds,
            scripts={each.name: each.digest for each in these if each.host},
            defects=list(dict.fromkeys(text for attempt in tried.attempts for text in attempt.defects)),
            retried=tries.retried,
            causes=None if disagreed or tried.attempt.causes is None else list(tried.attempt.causes),
            bug=tries.bug,
            evidence=evidence_files(folder, runner.folder),
        )
        if tried.outcome is not RemedyOutcome.ERROR:
            self.keep(result)
        return Trial(these, result)

    def _not_judged(self, these: Sequence[Remedy]) -> list[str]:
        """Why the cell's variant or suite cannot tell what these do on a real host; empty if they can."""
        reasons = self.cell.variant.not_judged
        found = [reasons[each.name] for each in these if each.name in reasons]
        variables = sorted({name for each in these if each.run for name in each.run.environment})
        if variables and not self.cell.build.heeds_remedies:
            found.append(f"the tests of {self.cell.suite.name} do not go by {' and '.join(variables)}")
        return found


def _name(these: Sequence[Remedy]) -> str:
    return AND.join(each.name for each in these)


def _price(these: Sequence[Remedy]) -> str:
    return " ".join(each.price for each in these)
