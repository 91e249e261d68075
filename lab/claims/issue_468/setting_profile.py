"""The third of the three settings, alone."""

from lab.claims import _cells
from lab.claims._cells import PROFILE, RESTRICTION, SettingInVain
from lab.probes import Facts


class SettingProfile(SettingInVain):
    order = 116
    quote = (
        f"Setting: ... apparmor_parser -R /etc/apparmor.d/{PROFILE} "
        "does not unblock the preflight on this host."
    )
    check = "whether the preflight fails where the policy's profile is not loaded, and nothing else is changed"
    only = "only Ubuntu's kernel without the profile shows it (variant apparmor-userns-profile-missing)"
    measured = (
        "the preflight fails all the same, and it is worse than before: no program gets a user namespace "
        f"({_cells.SOURCE})"
    )
    # On Ubuntu 24.04 as installed both come to the same. The first runs only on a kernel with the restriction.
    variants = ("apparmor-userns-profile-missing", "apparmor-userns-profile-removed")
    setting = f"{RESTRICTION} is 1 and the profile {PROFILE} is not loaded"

    def in_effect(self, facts: Facts) -> bool:
        return _cells.restriction_is(facts, "1") and not _cells.profile_is_loaded(facts)
