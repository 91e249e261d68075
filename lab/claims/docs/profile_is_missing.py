"""What Ubuntu 24.04 lacks."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell

FILE = "/etc/apparmor.d/bwrap-userns-restrict"


class ProfileIsMissing(Claim):
    order = 80
    quote = (
        "Ubuntu 24.04 restricts unprivileged user namespaces via AppArmor ... but does not ship the "
        "bwrap-userns-restrict profile that Ubuntu 25.04+ includes."
    )
    check = f"whether Ubuntu 24.04 as installed has no {FILE}"
    only = "could only be judged on Ubuntu 24.04 as installed"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "stock" and _cells.is_ubuntu(cell, "24.04")

    def look(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None or facts.apparmor is None:
            return Sight(None, "it has no AppArmor" if facts else "its facts were not read")
        there = FILE in facts.apparmor.profile_files
        return Sight(not there, f"it has {FILE}" if there else "it has not")
