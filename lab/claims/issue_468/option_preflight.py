"""The report's first option for a fix."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import WhereBlocked
from lab.record import RemedyOutcome
from lab.upstream.finished import FinishedCell


class OptionPreflight(WhereBlocked):
    order = 130
    quote = (
        "Test-side preflight — detect userns availability at test start, skip with clear logging on "
        "unsupported hosts."
    )
    check = "whether with the remedy preflight no test fails: those that cannot pass are skipped and say why"

    def look(self, cell: FinishedCell) -> Sight:
        return _cells.tried(cell, "preflight", wanted=RemedyOutcome.AVOIDS)
