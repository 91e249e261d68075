"""The second cure."""

from lab.claims.docs._remedy import CurePolicy


class OptionB(CurePolicy):
    order = 120
    quote = "Fix (Option B): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    check = "whether the remedy apparmor-restrict-off, which does that, cures such a cell"
    remedy = "apparmor-restrict-off"
