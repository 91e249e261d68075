"""The second of the three settings, alone."""

from lab.claims._cells import SettingInVain, sysctl_in_effect
from lab.probes import Facts

SYSCTL = "kernel.apparmor_restrict_unprivileged_userns"


class SettingRestrict(SettingInVain):
    order = 114
    quote = f"Setting: ... {SYSCTL}=0 ... does not unblock the preflight on this host."
    check = f"whether the preflight fails under the policy where {SYSCTL} is 0"
    setting = f"{SYSCTL} is 0"

    def in_effect(self, facts: Facts) -> bool | str:
        return sysctl_in_effect(facts, SYSCTL, "0")
