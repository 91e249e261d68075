"""The first cure."""

from lab.claims._base import Sight
from lab.claims.docs._remedy import CurePolicy
from lab.claims.issue_468.option_allow_list import profile_tried
from lab.upstream.finished import FinishedCell


class OptionA(CurePolicy):
    order = 110
    quote = "Fix (Option A): Install the bwrap AppArmor profile that Ubuntu 25.04+ ships."
    check = "whether the remedy bwrap-userns-restrict, or bwrap-profile with the same effect, cures such a cell"

    def look(self, cell: FinishedCell) -> Sight:
        return profile_tried(cell)
