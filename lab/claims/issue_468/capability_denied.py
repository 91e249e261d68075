"""What the preflight is denied."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.record import Confidence
from lab.upstream.finished import FinishedCell


class CapabilityDenied(UnderPolicy):
    order = 80
    quote = (
        "requires CAP_SYS_ADMIN inside the userns and that is denied by the unprivileged_userns AppArmor "
        "profile"
    )
    check = "whether the evidence proves that the namespace is made and its capabilities are denied"

    def look(self, cell: FinishedCell) -> Sight:
        if _cells.passed(cell.result):
            return Sight(False, "every test passes all the same", ("suite/junit.xml",))
        if cell.result.cause != _cells.POLICY or cell.result.confidence is not Confidence.PROVED:
            return Sight(None, "the evidence does not prove it")
        return Sight(True, cell.result.reason, ("probes.json", *cell.refusals))
