"""The first of the three settings, alone."""

from lab.claims._cells import SettingInVain, sysctl_in_effect
from lab.probes import Facts

SYSCTL = "kernel.unprivileged_userns_clone"


class SettingUsernsClone(SettingInVain):
    order = 112
    quote = f"Setting: {SYSCTL}=1 ... does not unblock the preflight on this host."
    check = f"whether the preflight fails under the policy where {SYSCTL} is 1"
    setting = f"{SYSCTL} is 1"

    def in_effect(self, facts: Facts) -> bool | str:
        return sysctl_in_effect(facts, SYSCTL, "1")
