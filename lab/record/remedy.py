"""The results of the remedies that were tried on a cell."""

from enum import StrEnum

from pydantic import Field

from lab.record._base import Entry, PlainText, Seconds


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
