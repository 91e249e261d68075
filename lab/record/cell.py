"""The result of one cell."""

import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, Field

from lab.probes import Context, Facts
from lab.record.outcome import (
    Confidence,
    Entry,
    Expectation,
    Fault,
    FoundCause,
    FrozenEntry,
    PlainText,
    Prediction,
    Seconds,
    Status,
    Stress,
    TestResult,
)


class ExperimentPolicy(StrEnum):
    """Which cells get an experiment."""

    NEVER = "never"
    UNCLEAR = "unclear"  # cells that failed, which was not expected, for an unknown or only likely cause
    ALWAYS = "always"  # all cells that failed or passed


class TrialOutcome(StrEnum):
    """The outcome of a set of changes that was tried in a fork of a cell."""

    PASSES = "passes"  # every deciding test passed
    FAILS = "fails"
    CANNOT = "cannot be tried here"
    ERROR = "error"  # a fault of the lab; says nothing about the changes


class ExperimentTrial(Entry):
    """One fork of the cell. `changes` are its differences from the cell's variant; the first trial has none."""

    changes: list[PlainText]
    outcome: TrialOutcome
    reason: PlainText = ""
    seconds: Seconds = 0.0
    retried: list[PlainText] = Field(
        default_factory=list, description="Faults of the lab after which it was retried."
    )
    bug: bool = Field(default=False, description="Whether it met a bug in the lab; see the cell's `bug`.")


class Experiment(Entry):
    """Sets of changes to a cell, each tried in its own fork, to find those that turn the cell's outcome."""

    tests: list[str] = Field(description="The tests that decide. No other test was run.")
    compared_with: str = Field(
        default="", description="The passing cell whose facts suggested changes, if any."
    )
    trials: list[ExperimentTrial] = Field(
        default_factory=list, description="The forks, in order. The first changes nothing."
    )
    turning: list[list[PlainText]] = Field(
        default_factory=list,
        description="The sets of changes that turn the outcome. For a failed cell: the smallest one found. "
        "For a passing cell: every single change that breaks it.",
    )
    stopped: PlainText = Field(
        default="",
        description="Why it ended before every possible change was tried, if it did; for example a budget.",
    )
    seconds: Seconds = 0.0
    evidence: list[str] = Field(default_factory=list)


class RemedyOutcome(StrEnum):
    """The outcome of a remedy that was tried on a cell."""

    VERIFIED = "verified"  # the whole suite passed
    AVOIDS = "avoids it"  # no test failed, but tests that need the sandbox were skipped: this cures nothing
    DOES_NOT_HELP = "does not help"
    MAKES_WORSE = "makes it worse"  # a test failed that passes without it
    CANNOT = "cannot be tried here"
    # Whatever it does under the cell's variant says nothing about a real host, so it was not tried.
    NOT_JUDGED = "not judged here"
    SCRIPT_FAILS = "its script fails"  # a defect of the remedy, which was not put in place
    ERROR = "error"  # a fault of the lab; says nothing about the remedy

    @property
    def says_nothing(self) -> bool:
        """Whether nobody knows what the remedy, once in place, does for the cell."""
        return self in (
            RemedyOutcome.CANNOT,
            RemedyOutcome.NOT_JUDGED,
            RemedyOutcome.SCRIPT_FAILS,
            RemedyOutcome.ERROR,
        )


class RemedyResult(Entry):
    """A remedy that was tried on the cell, or several at once, and its outcome."""

    name: str = Field(
        description="The remedy's name. The names of remedies that were tried together are joined by +."
    )
    result: RemedyOutcome
    reason: PlainText = ""
    price: str = Field(description="The protection that it gives up.")
    seconds: Seconds = 0.0
    steps: dict[str, Seconds] = Field(
        default_factory=dict,
        description="Seconds of each step, all its forks together; the rest of `seconds` is waiting for a "
        "processor.",
    )
    scripts: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the script of each remedy that changes the host."
    )
    defects: list[PlainText] = Field(
        default_factory=list,
        description="Defects of the script: its second run changed something, or its undo does not undo.",
    )
    retried: list[PlainText] = Field(
        default_factory=list, description="Faults of the lab after which it was retried."
    )
    causes: list[str] | None = Field(
        default=None,
        description="The causes that the evidence shows with it in place, in the order in which they block. "
        "null: nobody looked.",
    )
    bug: bool = Field(default=False, description="Whether it met a bug in the lab; see the cell's `bug`.")
    evidence: list[str] = Field(default_factory=list)


# Joins the name of a guest and that of the kernel that it was given instead of its own.
AT = "@"


def strip_kernel(guest: str) -> str:
    """The name of a guest, without that of a kernel which is not its own."""
    return guest.partition(AT)[0]


# The folder of a run that has its evidence.
CELLS = "cells"


class RepeatResult(Entry):
    """One of several runs of a cell's suite, each in its own fork. `failed`: the tests that did not pass."""

    status: Status
    cause: str | None = None
    reason: PlainText = ""
    failed: list[str] = Field(default_factory=list)
    seconds: dict[str, Seconds] = Field(default_factory=dict)
    seed: int | None = Field(
        default=None, description="The seed that shuffled the order of its tests. null: the order of the suite."
    )


class TestRate(Entry):
    """How often a test failed in the repeats of a cell; those that met a fault of the lab are not counted.

    `low` and `high` are the ends of Wilson's interval for the share of failures, at 95 % confidence.
    """

    __test__ = False  # pytest must not collect it as a test class

    name: str
    ran: int = Field(description="In how many repeats the test passed, failed or met an error.")
    failed_in: list[int] = Field(
        default_factory=list,
        description="The repeats in which it failed or met an error, counted from 1, as `repeats` has them.",
    )
    low: float
    high: float

    @property
    def failed(self) -> int:
        """In how many repeats it failed or met an error."""
        return len(self.failed_in)


def format_cell_folder(guest: str, variant: str, build: str) -> Path:
    """Return the folder for a cell's evidence, relative to the run's folder."""
    return Path(CELLS, guest, variant, build)


class SuiteResult(FrozenEntry):
    """What the suite did in a cell, and on what; all empty if the lab never got as far as that."""

    tests: list[TestResult] = Field(default_factory=list)
    seed: int | None = Field(
        default=None, description="The seed that shuffled the order of `tests`. null: the order of the suite."
    )
    stress: list[Stress] = Field(
        default_factory=list, description="What the guest was loaded with while the suite ran."
    )
    facts: Facts | None = Field(
        default=None,
        description="What the guest was like with the variant applied; as installed, if the variant was not "
        "applied. None: the lab never read it.",
    )
    context: Context | None = Field(
        default=None,
        description="What confined the suite. None: the lab never read it.",
    )
    seconds: dict[str, Seconds] = Field(
        default_factory=dict,
        description="Seconds per step: boot, deploy, fork, apply, suite, evidence. "
        "Forked cells share boot and deploy; the seconds of those are in run.lanes.",
    )
    fork: str = Field(
        default="",
        description="memory: the cell was forked from its lane's checkpoint. cold: it was not.",
    )
    repeats: list[RepeatResult] = Field(
        default_factory=list,
        description="Each run of the suite, with --repeat. They disagree if the status is flaky.",
    )
    rates: list[TestRate] = Field(
        default_factory=list, description="How often each test failed in `repeats`; empty without --repeat."
    )


class CellVerdict(FrozenEntry):
    """The status of a cell, and its explanation."""

    status: Status
    cause: str | None = Field(
        default=None,
        description="The first of `causes`, or unknown if the cell failed and the evidence shows no cause.",
    )
    confidence: Confidence | None = None
    causes: list[FoundCause] = Field(
        default_factory=list,
        description="Every cause that the evidence shows, in the order in which they block.",
    )
    reason: PlainText = ""
    fault: Fault | None = Field(
        default=None,
        description="What of the lab's own kept it from judging boxlite by a suite that ran. null: nothing.",
    )
    faulty: list[str] = Field(
        default_factory=list,
        description="The tests that failed for that fault, and so say nothing about boxlite.",
    )


class CellTrials(FrozenEntry):
    """What was tried on a cell, each in a fork of its own."""

    remedies: list[RemedyResult] = Field(
        default_factory=list,
        description="The remedies that were tried, the one that gives up the least protection first.",
    )
    experiment: Experiment | None = Field(
        default=None,
        description="The experiment on this cell, if there was one: which changes turn its outcome.",
    )


class KeptFrom(FrozenEntry):
    """The run that a result was taken over from, because nothing that decides it has changed since."""

    run: PlainText = Field(description="The id of the run that ran the cell.")
    began: AwareDatetime = Field(description="When that run began: the result is at most as old.")

    def __str__(self) -> str:
        return f"run {self.run} of {self.date}"

    @property
    def date(self) -> str:
        return f"{self.began:%Y-%m-%d}"


class CellHistory(FrozenEntry):
    """Where a cell was run, and what happened until it was decided."""

    lane: str = Field(
        default="",
        description="The lane that ran it: the guest's name, with a number from its second lane on; in a "
        "merged run after its shard.",
    )
    trials_lane: str = Field(
        default="",
        description="The lane that tried remedies and changes on it, if another one than `lane` did.",
    )
    retried: list[PlainText] = Field(
        default_factory=list,
        description="Faults of the lab after which the cell was retried on a fresh lane.",
    )
    faults: list[Fault] = Field(
        default_factory=list,
        description="What of the lab's own kept it from judging boxlite by a suite of an earlier try: one "
        "entry for each try that met such a fault, in their order. That of the last try is in the verdict.",
    )
    bug: bool = Field(
        default=False,
        description="Whether the cell, or what was tried on it, met a bug in the lab: its traceback is in "
        "traceback.txt among the evidence, and the run's exit status is 4. Remedies and trials of an "
        "experiment have a `bug` of their own.",
    )
    unfinished: bool = Field(
        default=False,
        description="Whether the run ended before it had tried every remedy and change on the cell.",
    )
    kept: KeptFrom | None = Field(
        default=None,
        description="The earlier run that ran the cell, if its result was taken over. null: this run ran it.",
    )

    def on_lanes(self, label: Callable[[str], str]) -> "CellHistory":
        """Return the history with its lanes as another run labels them."""
        return self.with_values(
            lane=label(self.lane) if self.lane else "",
            trials_lane=label(self.trials_lane) if self.trials_lane else "",
        )

    def after_try(self, *faults: str, bug: bool) -> "CellHistory":
        """Return the history after a further try: with the faults that it met, and whether it met a bug."""
        return self.with_values(retried=[*self.retried, *faults], bug=bug)


class CellResult(FrozenEntry):
    """One cell: a guest in a variant with a build. Paths in `evidence` are relative to the run's folder.

    Each part is made by the one who knows it. A result is never changed: `with_parts` makes another one.
    """

    guest: str = Field(description="Its name; with a kernel that is not its own, GUEST@KERNEL.")
    kernel: str = Field(
        default="",
        description="The kernel that was put under the guest: a package of its archive, or the absolute path "
        "of a .deb file or a folder. Empty: the guest's own.",
    )
    variant: str
    build: str
    expected: Expectation
    differs: dict[PlainText, list[PlainText]] = Field(
        default_factory=dict,
        description="How the guest differs from the host that the variant stands for, by that host's name.",
    )
    suite: SuiteResult = Field(default_factory=SuiteResult)
    prediction: Prediction | None = Field(
        default=None,
        description="What the probes alone expected before the suite ran. null: nobody asked them.",
    )
    verdict: CellVerdict
    trials: CellTrials = Field(default_factory=CellTrials)
    history: CellHistory = Field(default_factory=CellHistory)
    evidence: list[str] = Field(default_factory=list)
    rerun: str = Field(default="", description="Command line that runs exactly this cell again.")

    def with_parts(
        self,
        *,
        suite: SuiteResult | None = None,
        verdict: CellVerdict | None = None,
        trials: CellTrials | None = None,
        history: CellHistory | None = None,
        evidence: list[str] | None = None,
        rerun: str | None = None,
    ) -> "CellResult":
        """Return a result of the same cell that has these parts, and the other parts of this one."""
        values: dict[str, object] = {"suite": suite, "verdict": verdict, "trials": trials, "history": history}
        values |= {"evidence": evidence, "rerun": rerun}
        return self.with_values(**{name: value for name, value in values.items() if value is not None})

    # What nearly every reader asks for.

    @property
    def status(self) -> Status:
        return self.verdict.status

    @property
    def cause(self) -> str | None:
        return self.verdict.cause

    @property
    def causes(self) -> list[FoundCause]:
        return self.verdict.causes

    @property
    def reason(self) -> str:
        return self.verdict.reason

    @property
    def tests(self) -> list[TestResult]:
        return self.suite.tests

    @property
    def facts(self) -> Facts | None:
        return self.suite.facts

    @property
    def remedies(self) -> list[RemedyResult]:
        return self.trials.remedies

    @property
    def name(self) -> str:
        return f"{self.guest}/{self.variant}/{self.build}"

    @property
    def lacked_guest(self) -> bool:
        """Whether no guest decided this: the cell could not run, or the lab's user cannot build the guest."""
        is_unasked = self.status is Status.NOT_APPLICABLE and self.facts is None
        return self.status.could_not_run or is_unasked

    @property
    def guest_argument(self) -> str:
        """What names the guest on a command line, with its kernel."""
        return f"{strip_kernel(self.guest)}{AT}{self.kernel}" if self.kernel else self.guest

    @property
    def folder(self) -> Path:
        """The folder of its evidence, relative to the run's folder."""
        return format_cell_folder(self.guest, self.variant, self.build)

    def shell(self, run: str) -> str:
        """Return a command line that opens a shell in this cell of a run, given by its name or folder."""
        return shlex.join(["lab", "shell", "--run", run, self.name])

    @property
    def _experiment_trials(self) -> list[ExperimentTrial]:
        return self.trials.experiment.trials if self.trials.experiment else []

    @property
    def met_bug(self) -> bool:
        """Whether a bug in the lab kept the cell, or anything that was to be tried on it, from its end."""
        bugs = [remedy.bug for remedy in self.remedies] + [trial.bug for trial in self._experiment_trials]
        return self.history.bug or any(bugs)

    @property
    def has_more_to_try(self) -> bool:
        """Whether the status is final but a remedy or a change was not tried, or met a fault of the lab."""
        fault = self._experiment_met_fault or any(r.result is RemedyOutcome.ERROR for r in self.remedies)
        return not self.status.could_not_run and (self.history.unfinished or fault)

    @property
    def _experiment_met_fault(self) -> bool:
        return any(trial.outcome is TrialOutcome.ERROR for trial in self._experiment_trials)

    def before_trials(self) -> "CellResult":
        """Return the result without trials that met a fault of the lab, to make those again.

        An experiment that found which changes let a failed cell pass is kept, even if it met a fault.
        """
        experiment = self.trials.experiment
        has_turned = experiment and experiment.turning and self.status is not Status.PASS
        is_made_again = self._experiment_met_fault and not has_turned
        trials = CellTrials(
            remedies=[remedy for remedy in self.remedies if remedy.result is not RemedyOutcome.ERROR],
            experiment=None if is_made_again else experiment,
        )
        return self.with_parts(trials=trials)
