"""Where the profile comes from."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.probes.facts import numbers
from lab.record import CellResult
from lab.upstream.finished import FinishedCell

FILE = f"/etc/apparmor.d/{_cells.PROFILE}"


class ProfileShips(Claim):
    order = 90
    quote = "the unprivileged_userns AppArmor profile that ships in apparmor ≥ 4.0"
    check = "whether a guest with such an AppArmor, as installed, has the profile's file"
    only = "only a cell as installed shows it (variant stock)"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "stock"

    def look(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None:
            return Sight(None, "its facts were not read")
        apparmor = facts.apparmor
        if apparmor is None:
            return Sight(None, "it has no AppArmor")
        release = numbers(apparmor.version)
        if release is None:
            return Sight(None, "it does not tell the version of its AppArmor")
        version = f"AppArmor {apparmor.version}"
        if release.major < 4:
            return Sight(None, f"its {version} is older")
        if FILE not in apparmor.profile_files:
            return Sight(False, f"its {version} has no {FILE}")
        mode = apparmor.profiles.get(_cells.PROFILE)
        loaded = f"loaded in {mode} mode" if mode else "not loaded"
        return Sight(True, f"its {version} has {FILE}, {loaded}")
