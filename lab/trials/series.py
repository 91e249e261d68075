"""The forks of one experiment: changes made to a cell, with a budget, and what each set of them showed."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

from lab.base.errors import NotApplicable
from lab.builds import SuiteOptions
from lab.guest.suite import SuiteRun
from lab.guest.variant import NotInEffect
from lab.lane.cell import CellRunner
from lab.plan import Cell
from lab.probes import Facts, SuiteUser
from lab.record import Experiment, ExperimentStep, Status, StepOutcome
from lab.trials.changes import Change
from lab.trials.fork import Fork, Tries, evidence_files, first_failure, tests_that_ran
from lab.trials.policy import Policy

FOLDER = "experiment"
# An experiment ends here, whatever it found.
FORKS, SECONDS = 48, 900.0


class Stopped(Exception):
    """No further fork is made; the text says why."""


@dataclass
class StepAttempt:
    """Changes made to the cell in one fork. `seen` is what the guest showed then, if it was asked."""

    runner: CellRunner
    cell: Cell
    tests: Sequence[str]
    wanted: Sequence[Change]
    folder: Path
    seen: tuple[Facts, SuiteUser] | None = None

    def run(self) -> tuple[StepOutcome, str]:
        """Run the tests that decide."""
        changed = reduce(lambda so_far, change: change.on(so_far), self.wanted, self.cell.variant)
        fork = Fork.make(self.runner, replace(self.cell, variant=changed), self.folder)
        ran = fork.run(SuiteOptions(tests=self.tests, to_first_failure=True))
        # What cut a suite short may be told by the kernel's log alone.
        fork.gather(full=bool(ran.cut_short))
        outcome, reason = self._read(fork, ran)
        if not self.wanted or outcome is StepOutcome.PASSES:
            self.seen = fork.facts, self.runner.guest.read_who(changed)
        return outcome, reason

    def _read(self, fork: Fork, ran: SuiteRun) -> tuple[StepOutcome, str]:
        verdict = fork.judge(ran)
        if verdict.status is Status.FAIL:
            failed = first_failure(ran)
            return StepOutcome.FAILS, f"{failed.name}: {failed.message}" if failed else verdict.reason
        if verdict.status is not Status.PASS:
            return StepOutcome.ERROR, verdict.reason
        if missing := set(self.tests) - {test.name for test in tests_that_ran(ran)}:
            return StepOutcome.ERROR, f"did not run: {', '.join(sorted(missing))}"
        return StepOutcome.PASSES, ""


@dataclass
class Steps:
    """The steps of one experiment so far. They outlive the lane, so that a fresh one makes the rest.

    `seen`: what the guest showed in steps that pass and in the first, by the names of their changes.
    """

    made: list[ExperimentStep] = field(default_factory=list)
    seen: dict[tuple[str, ...], tuple[Facts, SuiteUser]] = field(default_factory=dict)

    def forget_faults(self) -> None:
        """Forget the steps that met a fault of the lab: they are to be made again."""
        self.made = [step for step in self.made if step.outcome is not StepOutcome.ERROR]


@dataclass
class Series:
    """The forks of one experiment. `tests` are those that decide."""

    policy: Policy
    runner: CellRunner
    cell: Cell
    tests: Sequence[str]
    so_far: Steps = field(default_factory=Steps)
    _start: float = field(default_factory=time.monotonic)
    _forks: int = 0

    @property
    def folder(self) -> Path:
        return self.runner.folder / self.cell.folder / FOLDER

    @property
    def steps(self) -> list[ExperimentStep]:
        return self.so_far.made

    @property
    def seen(self) -> dict[tuple[str, ...], tuple[Facts, SuiteUser]]:
        return self.so_far.seen

    def outcome(self, wanted: Sequence[Change]) -> StepOutcome:
        """What these changes lead to. A step that was made before is not made again. Raises Stopped."""
        names = [str(change) for change in wanted]
        made = next((step for step in self.steps if step.changes == names), None)
        if made is None:
            made = self._step(wanted, names)
            self.steps.append(made)
        return made.outcome

    def passes(self, wanted: Sequence[Change]) -> bool:
        return self.outcome(wanted) is StepOutcome.PASSES

    def record(self, **found: object) -> Experiment:
        """All that was done, with what it showed."""
        return Experiment.model_validate(
            {
                "tests": list(self.tests),
                "steps": self.steps,
                "seconds": round(sum(step.seconds for step in self.steps), 2),
                "evidence": evidence_files(self.folder, self.runner.folder),
                **found,
            }
        )

    def _check_budget(self) -> None:
        """Raise Stopped if no more forks can be made, LaneDied if the run is interrupted."""
        self.runner.guest.lane.check_wanted()
        if not self.runner.guest.is_alive:
            raise Stopped("the machine is gone")
        if self._forks >= FORKS:
            raise Stopped(f"the budget of {FORKS} forks is used up")
        if time.monotonic() - self._start >= SECONDS:
            raise Stopped(f"the budget of {SECONDS:.0f} s is used up")

    def _step(self, wanted: Sequence[Change], names: list[str]) -> ExperimentStep:
        self._check_budget()
        self.runner.guest.say(f"{self.cell.variant.name}: experiment: {' and '.join(names) or 'as it is'}")
        start = time.monotonic()
        tries = Tries(
            self.runner,
            self.policy.retries,
            StepOutcome.CANNOT,
            StepOutcome.ERROR,
            impossible=(NotApplicable, NotInEffect),
        )

        def begin(folder: Path) -> StepAttempt:
            self._forks += 1
            return StepAttempt(self.runner, self.cell, self.tests, wanted, folder)

        folder = self.folder / f"{len(self.steps) + 1:02}"
        shutil.rmtree(folder, ignore_errors=True)  # From a lane that died.
        tried = tries.run(begin, folder, is_surprising=self._is_surprising)
        if seen := tried.attempt.seen:
            self.seen[tuple(names)] = seen
        return ExperimentStep(
            changes=names,
            outcome=tried.outcome,
            reason=tried.reason,
            seconds=round(time.monotonic() - start, 2),
            retried=tries.retried,
            bug=tries.bug,
        )

    def _is_surprising(self, outcome: StepOutcome, reason: str, _attempt: StepAttempt) -> bool:
        """Whether it fails otherwise than the unchanged cell does.

        A box may die for its own reasons, as now and then under emulation; none passes by chance.
        """
        return outcome is StepOutcome.FAILS and bool(self.steps) and reason != self.steps[0].reason
