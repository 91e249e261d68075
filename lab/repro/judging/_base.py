"""What a report's text alone shows, and what a rule about it is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.record import Confidence
from lab.repro.report import Quote, Report

BUBBLEWRAP = "bwrap"


@dataclass(frozen=True)
class Finding:
    """A cause that the text shows: its name, how sure that is, why, and the lines that show it.

    `program` is the program that the cause blocks, if it is not bubblewrap.
    """

    name: str
    confidence: Confidence
    why: str
    quotes: tuple[Quote, ...]
    program: str = BUBBLEWRAP


@dataclass(frozen=True)
class Remark:
    """A contradiction, or a warning against a wrong conclusion, with the lines that it is about."""

    text: str
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True)
class Judged:
    """What a report's text alone shows. `findings` are in the order in which the causes block."""

    findings: tuple[Finding, ...] = ()
    remarks: tuple[Remark, ...] = ()


# Why a text shows a cause, and the lines that show it.
Shown = tuple[str, tuple[Quote, ...]]


class Hint(ABC):
    """What tells a cause in a text alone: its module is named like the cause, with `_` for `-`.

    It tells the cause as likely, because a text is no probe.
    """

    @abstractmethod
    def shown(self, report: Report) -> Shown | None:
        """Return why the text shows the cause, and the lines; None if it does not."""


class Remarks(ABC):
    """One kind of remark."""

    @abstractmethod
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        """Yield the remarks of this kind."""
