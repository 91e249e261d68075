"""The third of the three settings, alone."""

from lab.claims import _cells
from lab.claims._cells import SettingInVain
from lab.probes import Facts


class SettingProfile(SettingInVain):
    order = 116
    quote = (
        f"Setting: ... apparmor_parser -R /etc/apparmor.d/{_cells.PROFILE} "
        "does not unblock the preflight on this host."
    )
    check = "whether the preflight fails under the policy where the policy's profile is not loaded"
    setting = f"the profile {_cells.PROFILE} is not loaded"

    def in_effect(self, facts: Facts) -> bool | str:
        if facts.apparmor and _cells.PROFILE in facts.apparmor.profiles:
            return "the profile is the policy here, and without it nothing is left: only Ubuntu's kernel tells"
        return True
