"""Whether Ubuntu enforces the profile as installed."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.claims._cells import RESTRICTION
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class UbuntuDefault(Claim):
    order = 100
    quote = "(Ubuntu 24+ default)"
    check = f"whether Ubuntu as installed enforces the profile, and {RESTRICTION} is 1"
    only = "could only be judged on Ubuntu 24.04 or newer as installed"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "stock" and _cells.is_ubuntu(cell, "24.04", "26.04")

    def look(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None:
            return Sight(None, "its facts were not read")
        loaded = facts.apparmor.profiles if facts.apparmor else {}
        mode = loaded.get(_cells.PROFILE, "not loaded")
        switch = facts.sysctls[RESTRICTION]
        shown = f"the profile: {mode}; {RESTRICTION}: {switch or 'not there'}"
        return Sight(mode == "enforce" and switch == "1", shown)
