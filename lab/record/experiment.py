"""The results of an experiment on a cell."""

from enum import StrEnum

from pydantic import Field

from lab.record._base import Entry, PlainText, Seconds


class ExperimentPolicy(StrEnum):
    """Which cells get an experiment."""

    NEVER = "never"
    UNCLEAR = "unclear"  # cells that failed for an unknown or only likely cause
    ALWAYS = "always"  # all cells that failed or passed


class StepOutcome(StrEnum):
    """The outcome of a set of changes that was tried in a fork of a cell."""

    PASSES = "passes"  # every deciding test passed
    FAILS = "fails"
    CANNOT = "cannot be tried here"
    ERROR = "error"  # a fault of the lab; says nothing about the changes


class ExperimentStep(Entry):
    """One fork of the cell. `changes` are its differences from the cell's variant; the first step has none."""

    changes: list[PlainText]
    outcome: StepOutcome
    reason: PlainText = ""
    seconds: Seconds = 0.0
    retried: list[PlainText] = Field(
        default_factory=list, description="Faults of the lab after which it was retried."
    )
    bug: bool = Field(default=False, description="Whether it met a bug in the lab; see the cell's `bug`.")


class NotTried(Entry):
    """A change that was not tried, or not tried alone, and why."""

    change: PlainText
    reason: PlainText


class Experiment(Entry):
    """Sets of changes to a cell, each tried in its own fork, to find those that turn the cell's outcome."""

    tests: list[str] = Field(description="The tests that decide. No other test was run.")
    compared_with: str = Field(
        default="", description="The passing cell whose facts suggested changes, if any."
    )
    steps: list[ExperimentStep] = Field(
        default_factory=list, description="The forks, in order. The first changes nothing."
    )
    turning: list[list[PlainText]] = Field(
        default_factory=list,
        description="The sets of changes that turn the outcome. For a failed cell: the smallest one found. "
        "For a passing cell: every single change that breaks it.",
    )
    not_tried: list[NotTried] = Field(default_factory=list)
    stopped: PlainText = Field(
        default="",
        description="Why it ended before every possible change was tried, if it did; for example a budget.",
    )
    seconds: Seconds = 0.0
    evidence: list[str] = Field(default_factory=list)
