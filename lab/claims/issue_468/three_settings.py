"""What the reporter tried in vain."""

from lab.claims import _cells
from lab.claims._cells import SettingInVain
from lab.probes import Facts

VARIANT = "issue-468-settings"


class ThreeSettings(SettingInVain):
    order = 110
    quote = (
        "Setting: kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 "
        "apparmor_parser -R /etc/apparmor.d/unprivileged_userns "
        "does not unblock the preflight on this host."
    )
    check = f"whether the preflight fails under the variant {VARIANT}, which is these three settings"
    only = f"only a cell under the three settings shows it (variant {VARIANT})"
    measured = f"with the three settings together the whole suite passes ({_cells.SOURCE})"
    variants = (VARIANT,)
    setting = "the three settings are in effect"

    def in_effect(self, facts: Facts) -> bool:
        return _cells.restriction_is(facts, "0") and not _cells.profile_is_loaded(facts)
