"""Root on Ubuntu 24.04."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.claims.docs import _suite
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class WorksWithSudo(Claim):
    order = 60
    quote = "Works with sudo"
    check = "whether every test passes on Ubuntu 24.04 if root runs them"
    only = "could only be judged on Ubuntu 24.04 with the variant as-root"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "as-root" and _cells.is_ubuntu(cell, "24.04")

    def look(self, cell: FinishedCell) -> Sight:
        return _suite.passes(cell)
