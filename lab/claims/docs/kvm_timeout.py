"""What boxlite says where KVM cannot be opened."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.claims.docs.policy_timeout import TIMEOUT
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class KvmTimeout(Claim):
    order = 30
    quote = (
        'If you see "Timeout waiting for guest ready (30s)" errors, it\'s likely a KVM permission issue. '
        "Ensure your user is in the kvm group"
    )
    check = "whether boxlite says so in a cell whose user may not open /dev/kvm"
    only = "only a cell whose user may not open /dev/kvm shows it (variant kvm-denied)"

    def concerns(self, cell: CellResult) -> bool:
        return _cells.blocked_by(cell, "kvm-denied")

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if not words.said:
            return Sight(None, "what boxlite says was not gathered")
        if TIMEOUT in words.text:
            return Sight(True, "it says so", (words.file,) if words.file else ())
        return Sight(False, f"it says: {words.said.splitlines()[0]}", ("suite/junit.xml",))
