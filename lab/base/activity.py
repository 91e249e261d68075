"""Long work as it is seen from outside: what it does at the moment, and whether it is to end early."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from lab.base.errors import LabError


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


@dataclass(frozen=True)
class Progress:
    """What is being done, in words for whoever waits.

    Without an `activity` it goes on with that of the progress before it. `name` is the text without how far the
    work is: "downloading" of "downloading: 3 of 600 MiB". Logs show it once. By default it is the text.
    """

    text: str
    activity: Activity | None = None
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.text)

    def within(self, activity: Activity, *, prefix: str = "") -> "Progress":
        """Return it as a part of larger work: with `prefix` in front, and `activity` if it has none."""
        return Progress(f"{prefix}{self.text}", self.activity or activity, f"{prefix}{self.name}")


ShowProgress = Callable[[Progress], None]


class CancelToken:
    """Says whether work is to end early. Another thread cancels it; the work asks it between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raise LabError if the work is to end."""
        if self.is_cancelled:
            raise LabError("interrupted")


@dataclass(frozen=True)
class Task:
    """What long work knows of those who wait for it. By default nobody sees it, and nothing ends it early.

    `show` gets its progress. `check` is called while the work waits and before what takes long; it raises the
    error that ends the work, as `CancelToken.check` does.
    """

    show: ShowProgress = lambda _progress: None
    check: Callable[[], None] = lambda: None


# Work that nobody waits for, or that is over soon.
UNWATCHED = Task()
