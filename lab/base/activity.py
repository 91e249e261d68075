"""What is being done, in words for whoever waits, with the kind of work that it is."""

from collections.abc import Callable
from enum import StrEnum
from typing import Self

# Gets a text that says what is being done: words, or a step.
Say = Callable[[str], None]


class Activity(StrEnum):
    """One kind of work of a lane. The value is its name for readers."""

    IMAGE = "image"
    START = "start of the guest"
    DEPLOY = "deployment"
    SETUP = "fork and variant"
    SUITE = "suite"
    EVIDENCE = "evidence"
    TRIALS = "remedies and experiments"
    WAITING = "waiting"
    OTHER = "other"


class Step(str):
    """A text that says what is being done, and the kind of work that it is.

    `name` is the text without how far the step is: "downloading" of "downloading: 3 of 600 MiB". Logs show it
    once. A step is a text, so that whoever only passes it on or shows it needs to know no more. A text that is
    no step goes on with the activity of the step before it.
    """

    activity: Activity
    name: str

    def __new__(cls, text: str, activity: Activity, *, name: str = "") -> Self:
        made = super().__new__(cls, text)
        made.activity, made.name = activity, name or text
        return made

    @classmethod
    def of(cls, text: str, activity: Activity, *, prefix: str = "") -> "Step":
        """Return a text as a step with `prefix` in front; a step keeps its own activity."""
        if isinstance(text, Step):
            return cls(f"{prefix}{text}", text.activity, name=f"{prefix}{text.name}")
        return cls(f"{prefix}{text}", activity)


def name_of(text: str) -> str:
    """Return what logs show of a text that says what is being done: a step without how far it is."""
    return text.name if isinstance(text, Step) else text
