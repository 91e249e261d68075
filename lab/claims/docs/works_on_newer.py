"""Ubuntu releases after 24.04."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.claims.docs import _suite
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class WorksOnNewer(Claim):
    order = 70
    quote = "Works ... on Ubuntu 25.04+."
    check = "whether every test passes on Ubuntu 25.04 or newer as installed"
    only = "could only be judged on Ubuntu 25.04 or newer as installed"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "stock" and _cells.is_ubuntu(cell, "25.04", "25.10", "26.04")

    def look(self, cell: FinishedCell) -> Sight:
        return _suite.passes(cell)
