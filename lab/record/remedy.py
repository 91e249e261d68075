"""What came of the remedies that were tried on a cell."""

from enum import StrEnum

from pydantic import Field

from lab.record.outcome import Entry, PlainText


class RemedyOutcome(StrEnum):
    """What came of a remedy that was tried on a cell."""

    VERIFIED = "verified"  # the whole suite passed
    AVOIDS = "avoids it"  # no test failed, but some that need the sandbox were skipped: nothing is cured
    DOES_NOT_HELP = "does not help"
    MAKES_WORSE = "makes it worse"  # a test failed that passed without it
    CANNOT = "cannot be tried here"
    ERROR = "error"  # the lab's own trouble, or the script's; says nothing about the remedy


class RemedyResult(Entry):
    """A remedy that was tried on the cell, or several at once, and what came of it."""

    name: str = Field(description="Several that were put in place together have their names joined by +.")
    result: RemedyOutcome
    reason: PlainText = ""
    price: str = Field(description="What protection it gives up.")
    seconds: float = 0.0
    scripts: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the script of each remedy that changes the host."
    )
    defects: list[PlainText] = Field(
        default_factory=list,
        description="What is wrong with the script: its second run changed something, its undo does not undo.",
    )
    retried: list[PlainText] = Field(
        default_factory=list, description="The lab's own faults for which it was tried again."
    )
    evidence: list[str] = Field(default_factory=list)
