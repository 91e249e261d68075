"""What the report says of other tests."""

from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class OtherTests(Claim):
    order = 160
    quote = (
        "These two tests were among the originally-reported 14 failures in make test:all; the other 12 had "
        "different root causes"
    )
    check = "nothing: it is not about the jailer"
    only = "about upstream's other tests, and the lab's suite is the jailer's alone"

    def concerns(self, cell: CellResult) -> bool:
        return False

    def look(self, cell: FinishedCell) -> Sight:
        return Sight(None, self.only)
