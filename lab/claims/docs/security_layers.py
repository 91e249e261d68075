"""What the jailer does beside its namespaces."""

from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class SecurityLayers(Claim):
    order = 150
    quote = "Enabled: chroot, uid drop, cgroups"
    check = "nothing: a run holds no evidence of it"
    only = "only a look into a running box's processes could show it; the suite looks at their namespaces alone"

    def concerns(self, cell: CellResult) -> bool:
        return False

    def look(self, cell: FinishedCell) -> Sight:
        return Sight(None, self.only)
