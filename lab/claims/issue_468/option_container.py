"""The report's second option for a fix."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import WhereBlocked
from lab.record import RemedyOutcome
from lab.upstream.finished import FinishedCell


class OptionContainer(WhereBlocked):
    order = 140
    quote = "Run jailer tests in a privileged container in CI (the runc / youki convention)."
    check = "whether the whole suite passes with the remedy privileged-container"

    def look(self, cell: FinishedCell) -> Sight:
        return _cells.tried(cell, "privileged-container", wanted=RemedyOutcome.VERIFIED)
