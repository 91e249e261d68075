"""Trying something in a fork of a cell: the one way in which remedies and experiments do it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from lab.base.errors import Bug, NotApplicable, is_lasting
from lab.base.files import A_RUN, explain_full_disk
from lab.base.wait import Stopwatch
from lab.builds import SuiteOptions
from lab.causes import evidence
from lab.guest import variant
from lab.lane import cell as lane_cell
from lab.lane.cell import choose_fault_folder, keep_texts, set_attempt_aside
from lab.lane.running import RunningLane
from lab.machine.lane import convert_to_fault
from lab.plan import Cell
from lab.probes import Facts
from lab.record import CellVerdict, Expectation, Fault, FoundCause, Outcome, SuiteRun, TestResult
from lab.verdict.status import Circumstances, judge_cell

# Where the evidence of a second look goes, below that of the first, and of a third, below that of the second.
AGAIN = "again"


@dataclass(frozen=True)
class Fork:
    """A fresh fork of a cell with its variant in effect. What is found in it goes to `folder`.

    `watch` adds up the seconds of its steps, which have the names of a cell's.
    """

    running: RunningLane
    cell: Cell
    folder: Path
    watch: Stopwatch
    facts: Facts
    mark: variant.CellStart

    @classmethod
    def make(cls, running: RunningLane, cell: Cell, folder: Path, watch: Stopwatch | None = None) -> "Fork":
        """Fork, apply the cell's variant and read it back. Raises NotApplicable, NotInEffect, LabError."""
        if reason := lane_cell.find_obstacle(running, cell):
            raise NotApplicable(reason)
        watch = watch or Stopwatch()
        folder.mkdir(parents=True, exist_ok=True)
        with watch.step("fork"):
            running.fork(cell.build)
        with watch.step("apply"):
            applied = lane_cell.apply_variant(running, cell.variant)
        return cls(running, cell, folder, watch, applied.facts, applied.mark)

    def run(self, options: SuiteOptions) -> SuiteRun:
        """Run the suite. Raises LabError."""
        return lane_cell.run_suite(self.running, self.cell, self.watch, options)

    def gather(self, *, full: bool, folder: Path | None = None) -> None:
        """Fetch the evidence; with `full`, all that can explain a failure. Raises LabError."""
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        with self.watch.step("evidence"):
            lane_cell.gather_evidence(self.running, self.cell, folder, mark=self.mark, full=full)

    def judge(self, run: SuiteRun, findings: Sequence[FoundCause] = ()) -> CellVerdict:
        """What a suite that may have stopped at its first failure says; tests that did not run say nothing."""
        circumstances = Circumstances(
            speed=self.running.lane.speed,
            # A surprising failure is looked at in a second fork.
            hangs_count=True,
            killed_for_memory=evidence.find_killed_programs(self.folder),
        )
        run = replace(run, tests=list_run_tests(run))
        return judge_cell(self.cell.suite, run, Expectation(), findings, circumstances)


def list_run_tests(run: SuiteRun) -> list[TestResult]:
    return [test for test in run.tests if test.outcome is not Outcome.NOT_RUN]


def find_first_failure(run: SuiteRun) -> TestResult | None:
    """The first test that failed or met an error, None if no test did."""
    return next((t for t in list_run_tests(run) if t.outcome.is_failure), None)


class Attempt[T: StrEnum](Protocol):
    """One attempt in one fork. It is run once; what else it found is kept in its own fields.

    `fault`: what of the lab's own kept its suite from saying anything, if that is known.
    """

    fault: Fault | None

    def run(self) -> tuple[T, str]:
        """Make the attempt; its outcome, and why. Raises NotApplicable, or what is a fault."""


@dataclass(frozen=True)
class Conclusion[T: StrEnum, A]:
    """The outcome of something that was tried, why, and the attempts that count, the newest last."""

    outcome: T
    reason: str
    attempts: tuple[A, ...]

    @property
    def attempt(self) -> A:
        return self.attempts[-1]


@dataclass
class Tries[T: StrEnum]:
    """How one thing is tried: guarded against faults of the lab, and looked at twice if it surprises.

    `impossible` are the errors that say it cannot be tried here, which is outcome `cannot`; a fault is `error`.
    `retried` says for which faults an attempt was repeated, at most `retries` times in all. `bug`: whether an
    attempt met a bug in the lab.
    """

    running: RunningLane
    retries: int
    cannot: T
    error: T
    impossible: tuple[type[Exception], ...] = (NotApplicable,)
    retried: list[str] = field(default_factory=list)
    bug: bool = False

    def run[A: Attempt[Any]](
        self,
        begin: Callable[[Path], A],
        folder: Path,
        *,
        is_surprising: Callable[[T, str, A], bool],
    ) -> Conclusion[T, A]:
        """Try it in a fork; a surprising outcome counts only if a second fork agrees.

        Under emulation a box dies now and then whatever was tried, so there a third fork decides between two
        that disagree. Elsewhere two that disagree say nothing.

        `begin` makes an attempt for a folder. Raises LaneDied if the run is interrupted.
        """
        first = self._run_with_retries(begin, folder)
        if not is_surprising(first.outcome, first.reason, first.attempt):
            return first
        second = self._run_with_retries(begin, folder / AGAIN)
        outcome, reason = self._compare(first, second)
        both = (*first.attempts, *second.attempts)
        is_fault = self.error in (first.outcome, second.outcome)
        if outcome is not self.error or is_fault or not self.running.lane.is_emulated:
            return Conclusion(outcome, reason, both)
        third = self._run_with_retries(begin, folder / AGAIN / AGAIN)
        outcome, reason = self._decide(first, second, third)
        return Conclusion(outcome, reason, (*both, *third.attempts))

    def _run_with_retries[A: Attempt[Any]](self, begin: Callable[[Path], A], folder: Path) -> Conclusion[T, A]:
        """One attempt, repeated in another fork after a fault of the lab that another fork may not meet.

        After one that was too slow no other lane is at work meanwhile.
        """
        slow = False
        while True:
            attempt = begin(folder)
            self.running.alone = slow
            try:
                outcome, reason, lasts = self._run_guarded(attempt, folder)
            finally:
                self.running.alone = False
            slow = attempt.fault is not None and attempt.fault.missed_a_limit
            is_last = lasts or len(self.retried) >= self.retries or not self.running.lane.is_alive
            if outcome is not self.error or is_last:
                return Conclusion(outcome, reason, (attempt,))
            self.retried.append(reason)
            set_attempt_aside(folder, choose_fault_folder(folder))

    def _run_guarded(self, attempt: Attempt[T], folder: Path) -> tuple[T, str, bool]:
        """Run an attempt that writes into `folder`: its outcome, why, and whether every other fork would show
        the same fault.

        A fault or a bug becomes its outcome. Raises LaneDied if the run is interrupted.
        """
        lane = self.running.lane
        try:
            lane.check_alive()
            with explain_full_disk(folder, A_RUN):
                return *attempt.run(), False
        except self.impossible as obstacle:
            return self.cannot, str(obstacle), True
        except Exception as error:
            lane.check_wanted()
            fault = convert_to_fault(error)
            if isinstance(fault, Bug):
                self.bug = True
                keep_texts(folder, fault.evidence)
            return self.error, str(fault), is_lasting(fault)

    def _compare[A](self, first: Conclusion[T, A], second: Conclusion[T, A]) -> tuple[T, str]:
        """The outcome of two looks. If they disagree, neither says anything, which is `error`."""
        if first.outcome is second.outcome:
            return first.outcome, f"twice: {first.reason}"
        if second.outcome is self.error:
            return self.error, f"a second try, after {_describe(first)}, met a fault: {second.reason}"
        return self.error, f"two tries disagree: {_describe(first)}; {_describe(second)}"

    def _decide[A](
        self, first: Conclusion[T, A], second: Conclusion[T, A], third: Conclusion[T, A]
    ) -> tuple[T, str]:
        """The outcome of two of three looks; `error` if all differ."""
        other = {second.outcome: first, first.outcome: second}.get(third.outcome)
        if other is None:
            return self.error, f"three tries disagree: {'; '.join(map(_describe, (first, second, third)))}"
        majority = f"in two of three tries under emulation; once: {_describe(other)}"
        return third.outcome, f"{third.reason} ({majority})" if third.reason else majority


def _describe(conclusion: Conclusion[Any, Any]) -> str:
    """An outcome, and its reason."""
    return ": ".join(filter(None, (conclusion.outcome, conclusion.reason)))


def list_evidence_files(folder: Path, run: Path) -> list[str]:
    """All that was kept below `folder`, relative to the run's folder."""
    return [str(file.relative_to(run)) for file in sorted(folder.rglob("*")) if file.is_file()]
