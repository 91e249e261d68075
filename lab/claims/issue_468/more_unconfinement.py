"""What the reporter thinks is needed beside them."""

from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.claims.issue_468.option_allow_list import profile_tried
from lab.upstream.finished import FinishedCell


class MoreUnconfinement(UnderPolicy):
    order = 120
    quote = "The kernel/AppArmor stack appears to require additional unconfinement for bwrap."
    check = "whether a profile of bubblewrap's own, and nothing else, unblocks a cell under the policy"

    def look(self, cell: FinishedCell) -> Sight:
        return profile_tried(cell)
