"""The second of the three settings, alone."""

from lab.claims import _cells
from lab.claims._cells import RESTRICTION, SettingInVain
from lab.probes import Facts


class SettingRestrict(SettingInVain):
    order = 114
    quote = f"Setting: ... {RESTRICTION}=0 ... does not unblock the preflight on this host."
    check = f"whether the preflight fails where {RESTRICTION} is 0, and nothing else is changed"
    only = "only Ubuntu's kernel with this setting shows it (variant apparmor-restrict-off)"
    measured = f"this setting alone cures, the whole suite passes ({_cells.SOURCE})"
    variants = ("apparmor-restrict-off",)
    setting = f"{RESTRICTION} is 0"

    def in_effect(self, facts: Facts) -> bool:
        return _cells.restriction_is(facts, "0")
