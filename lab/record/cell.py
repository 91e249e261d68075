"""The result of one cell."""

from pathlib import Path
from typing import Any

from pydantic import Field

from lab.probes import Context, Facts
from lab.record.experiment import Experiment, StepOutcome
from lab.record.outcome import Confidence, Entry, Expectation, Finding, PlainText, Status, TestResult
from lab.record.remedy import RemedyOutcome, RemedyResult


class RepeatResult(Entry):
    """One of several runs of a cell's suite, each in its own fork; `failed`: the tests that did not pass."""

    status: Status
    cause: str | None = None
    reason: PlainText = ""
    failed: list[str] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)


def cell_folder(guest: str, variant: str, build: str) -> Path:
    """Where a cell's evidence goes, relative to the run's folder."""
    return Path("cells", guest, variant, build)


class CellResult(Entry):
    """One square of the matrix. Paths in `evidence` are relative to the run's folder."""

    guest: str
    variant: str
    build: str
    status: Status
    expected: Expectation
    cause: str | None = Field(
        default=None,
        description="The first of `causes`, or unknown where a cell failed and the evidence shows none.",
    )
    confidence: Confidence | None = None
    causes: list[Finding] = Field(
        default_factory=list, description="Every cause that the evidence shows, the first that blocks first."
    )
    reason: PlainText = ""
    tests: list[TestResult] = Field(default_factory=list)
    facts: Facts | None = Field(
        default=None,
        description="What the guest was like with the variant applied; as installed, if the variant was not "
        "applied. None: the lab never read it.",
    )
    context: Context | None = Field(
        default=None,
        description="What confined the suite. None: the lab never read it.",
    )
    older_facts: dict[str, Any] = Field(
        default_factory=dict,
        description="Only in a cell from a file of schema 1 whose lab read fewer facts: those facts, as they "
        "are in that file. Then `facts` or `context` is null.",
    )
    evidence: list[str] = Field(default_factory=list)
    remedies: list[RemedyResult] = Field(
        default_factory=list,
        description="Those that were tried, the one that gives up least protection first.",
    )
    experiment: Experiment | None = Field(
        default=None, description="Where one was made: changes that turn the outcome, by trying."
    )
    seconds: dict[str, float] = Field(
        default_factory=dict,
        description="Steps that this cell alone took: boot, deploy, fork, apply, suite, evidence. "
        "A forked cell shares its lane's boot and deploy; those are in run.lanes.",
    )
    lane: str = Field(
        default="", description="Which lane served it: its guest, numbered from the guest's second lane on."
    )
    fork: str = Field(
        default="",
        description="How the cell was forked from the lane's checkpoint: memory or disk. cold: it was not.",
    )
    repeats: list[RepeatResult] = Field(
        default_factory=list,
        description="With --repeat: each run of the suite. They disagree where the status is flaky.",
    )
    retried: list[PlainText] = Field(
        default_factory=list,
        description="The lab's own faults for which the cell was tried again on a fresh lane.",
    )
    unfinished: bool = Field(
        default=False,
        description="Whether the run ended before all was tried on the cell that was to be; its status stands.",
    )
    rerun: str = Field(default="", description="One command line that runs exactly this cell again.")

    @property
    def folder(self) -> Path:
        """Where its evidence is, relative to the run's folder."""
        return cell_folder(self.guest, self.variant, self.build)

    @property
    def has_more_to_try(self) -> bool:
        """Whether its status stands, and a remedy or a change was not tried or met a fault of the lab's own."""
        faults = [tried.result is RemedyOutcome.ERROR for tried in self.remedies]
        return not self.status.could_not_run and (self.unfinished or self._experiment_met_fault or any(faults))

    @property
    def _experiment_met_fault(self) -> bool:
        steps = self.experiment.steps if self.experiment else []
        return any(step.outcome is StepOutcome.ERROR for step in steps)

    def before_trials(self) -> "CellResult":
        """The result as it was before what met a fault was tried, so that it can be tried anew.

        An experiment that found what lets a failed cell pass stands, whatever fault it met on the way.
        """
        found = self.experiment and self.experiment.turning and self.status is not Status.PASS
        anew = self._experiment_met_fault and not found
        update = {"remedies": [], "unfinished": False} | ({"experiment": None} if anew else {})
        return self.model_copy(update=update)
