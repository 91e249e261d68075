"""The first of the three settings, alone."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.upstream.finished import FinishedCell

SYSCTL = "kernel.unprivileged_userns_clone"


class SettingUsernsClone(UnderPolicy):
    order = 112
    quote = f"Setting: {SYSCTL}=1 ... does not unblock the preflight on this host."
    check = f"whether the preflight fails under the policy where {SYSCTL} is 1"

    def look(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None:
            return Sight(None, "its facts were not read")
        found = _cells.sysctl_in_effect(facts, SYSCTL, "1")
        if isinstance(found, str):
            return Sight(None, found)
        if not found:
            return Sight(None, f"{SYSCTL} is 1: that is not in effect here")
        return _cells.in_vain(cell, f"{SYSCTL} is 1")
