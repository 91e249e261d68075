"""What came of the changes that were tried on a cell."""

from enum import StrEnum

from pydantic import Field

from lab.record.outcome import Entry, PlainText


class ExperimentPolicy(StrEnum):
    """On which cells experiments are made."""

    NEVER = "never"
    UNCLEAR = "unclear"  # those that failed for a cause that is unknown, or only likely
    ALWAYS = "always"  # those that failed, and those that passed


class StepOutcome(StrEnum):
    """What came of changes that were put on a cell, in a fork of it."""

    PASSES = "passes"  # every test that decides passed
    FAILS = "fails"
    CANNOT = "cannot be tried here"
    ERROR = "error"  # the lab's own trouble; says nothing about the changes


class ExperimentStep(Entry):
    """One fork of the cell; `changes`: what it was put on with or without beside its variant, if anything."""

    changes: list[PlainText]
    outcome: StepOutcome
    reason: PlainText = ""
    seconds: float = 0.0
    retried: list[PlainText] = Field(
        default_factory=list, description="The lab's own faults for which it was tried again."
    )


class NotTried(Entry):
    """A change that was not tried, or not alone, and why."""

    change: PlainText
    reason: PlainText


class Experiment(Entry):
    """Changes that were put on a cell, each in a fork of its own, to find which of them turn its outcome."""

    tests: list[str] = Field(description="Those that decide, and nothing else was run.")
    compared_with: str = Field(default="", description="The passing cell whose facts led to changes, if any.")
    steps: list[ExperimentStep] = Field(
        default_factory=list, description="In the order in which they were made; the first changes nothing."
    )
    turning: list[list[PlainText]] = Field(
        default_factory=list,
        description="Each set of changes that turns the outcome. Of a cell that failed the smallest one found; "
        "of one that passed every single change that breaks it.",
    )
    not_tried: list[NotTried] = Field(default_factory=list)
    stopped: PlainText = Field(
        default="", description="Why it ended before all that could be tried was, if so; a budget, for example."
    )
    seconds: float = 0.0
    evidence: list[str] = Field(default_factory=list)
