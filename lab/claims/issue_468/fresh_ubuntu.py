"""The report's own host."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell

TEST = "jailer_enabled_box_starts_and_executes"


class FreshUbuntu(Claim):
    order = 50
    quote = (
        "# fresh Ubuntu 24.04 EC2 host (kernel 7.0.0-1004-aws) ... "
        "make test:integration:rust FILTER=jailer_enabled_box"
    )
    check = "whether that test fails on Ubuntu 24.04 as installed, whatever its kernel"
    only = "could only be judged on Ubuntu 24.04 as installed"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "stock" and _cells.is_ubuntu(cell, "24.04")

    def look(self, cell: FinishedCell) -> Sight:
        if untold := _cells.untold(cell.result, TEST):
            return Sight(None, untold)
        fails = TEST in _cells.failed(cell.result)
        facts = cell.result.facts
        kernel = facts.kernel if facts else "that was not read"
        return Sight(fails, f"it {'fails' if fails else 'passes'} with kernel {kernel}", ("suite/junit.xml",))
