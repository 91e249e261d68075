"""What a claim is: one statement of a bug report, and how a cell's record shows whether it holds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lab.record import CellResult
from lab.upstream.finished import FinishedCell


@dataclass(frozen=True)
class Sight:
    """Whether a claim holds by what one cell shows; None if the cell does not show it. `what` says why.

    `files` are those of the cell's folder that show it; with none of them it is the record alone.
    """

    holds: bool | None
    what: str
    files: tuple[str, ...] = ()


class Claim(ABC):
    """One statement. Its module's name, with `-` for `_`, is the claim's name."""

    # Position in the report's text.
    order: ClassVar[int]
    # The report's own words.
    quote: ClassVar[str]
    # What is checked, in a sentence.
    check: ClassVar[str]
    # Which cells can show it, in a sentence. It is the reason given for a guest without such a cell.
    only: ClassVar[str]
    # What was measured outside the lab, with its source; shown where a run does not judge the claim.
    measured: ClassVar[str] = ""

    @abstractmethod
    def concerns(self, cell: CellResult) -> bool:
        """Whether such a cell can show whether the claim holds, whatever its status."""

    @abstractmethod
    def look(self, cell: FinishedCell) -> Sight:
        """What a cell shows. The claim concerns the cell, and the cell's suite ran."""
