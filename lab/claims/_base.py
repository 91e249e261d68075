"""What a claim is: one statement of a bug report, and what a cell's record shows of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lab.record import CellResult
from lab.upstream.recorded import Recorded


@dataclass(frozen=True)
class Sight:
    """What one cell shows of a claim: that it holds, that it does not, or (None) nothing; `what` says why.

    `files` are those of the cell's folder that show it; with none of them it is the record alone.
    """

    holds: bool | None
    what: str
    files: tuple[str, ...] = ()


class Claim(ABC):
    """One statement. Its module's name, with `-` for `_`, is the claim's name."""

    # Its place in the report's text.
    order: ClassVar[int]
    # The report's own words.
    quote: ClassVar[str]
    # What is looked at, in a sentence.
    check: ClassVar[str]
    # Which cells alone can show it, in a sentence: what is said of a guest that has none of them.
    only: ClassVar[str]

    @abstractmethod
    def concerns(self, cell: CellResult) -> bool:
        """Whether such a cell can show anything of the claim, whatever came of it."""

    @abstractmethod
    def look(self, cell: Recorded) -> Sight:
        """What a cell shows that the claim concerns and that ran."""
