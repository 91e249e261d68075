"""Claims that something cures a host, judged by the remedy that does it."""

from typing import ClassVar

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult, RemedyOutcome
from lab.upstream.finished import FinishedCell


class Cure(Claim):
    """That a step cures a cause: the remedy was tried on a cell with that cause, with the wanted result."""

    cause: ClassVar[str]
    remedy: ClassVar[str]
    wanted: ClassVar[RemedyOutcome] = RemedyOutcome.VERIFIED

    def concerns(self, cell: CellResult) -> bool:
        return _cells.blocked_by(cell, self.cause)

    def look(self, cell: FinishedCell) -> Sight:
        return _cells.tried(cell, self.remedy, wanted=self.wanted)


class CurePolicy(Cure):
    """That a step cures Ubuntu 24.04's policy."""

    cause = _cells.POLICY
    only = "only a cell under Ubuntu 24.04's policy shows it (variant apparmor-userns-nocaps)"
