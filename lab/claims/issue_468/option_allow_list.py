"""The report's third option for a fix."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult, RemedyOutcome
from lab.upstream.finished import FinishedCell

# Each is a set-up script that gives bubblewrap a profile: `lab remedies show NAME --script`.
REMEDIES = ("bwrap-userns-restrict", "bwrap-profile")


class OptionAllowList(Claim):
    order = 150
    quote = (
        "Document a setup script that installs an AppArmor allowlist for the test bwrap binary, similar to "
        "bubblewrap-userns-restrict overrides for snap."
    )
    check = f"whether the whole suite passes with the script of the remedy {' or '.join(REMEDIES)}"
    only = "only a cell that AppArmor blocks shows it"

    def concerns(self, cell: CellResult) -> bool:
        return _cells.blocked_by(cell, _cells.POLICY, "apparmor-userns-deny")

    def look(self, cell: FinishedCell) -> Sight:
        return profile_tried(cell)


def profile_tried(cell: FinishedCell) -> Sight:
    """What came of giving bubblewrap a profile of its own."""
    return _cells.tried(cell, *REMEDIES, wanted=RemedyOutcome.VERIFIED)
