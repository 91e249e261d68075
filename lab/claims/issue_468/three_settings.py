"""What the reporter tried in vain."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell

VARIANT = "issue-468-settings"


class ThreeSettings(Claim):
    order = 110
    quote = (
        "Setting: kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 "
        "apparmor_parser -R /etc/apparmor.d/unprivileged_userns "
        "does not unblock the preflight on this host."
    )
    check = f"whether the preflight fails under the variant {VARIANT}, which is these three settings"
    only = f"only a cell under the three settings shows it (variant {VARIANT})"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == VARIANT

    def look(self, cell: FinishedCell) -> Sight:
        if _cells.passed(cell.result):
            return Sight(False, "every test passes under the three settings", ("suite/junit.xml",))
        if _cells.PREFLIGHT in cell.words.text:
            return Sight(True, f"it fails: {cell.result.reason}", (cell.words.file, "probes.json"))
        return Sight(None, f"what fails is not the preflight: {cell.result.reason}", ("suite/junit.xml",))
