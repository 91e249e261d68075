"""What a Linux host needs."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell

CONTROL = "jailer_disabled_box_starts_and_executes"


class KvmIsAll(Claim):
    order = 10
    quote = "Linux: Only requires access to /dev/kvm"
    check = "whether every test passes in each cell in which a box starts without the jailer, and so with KVM"
    only = "only a cell in which a box without the jailer starts shows it"

    def concerns(self, cell: CellResult) -> bool:
        return not _cells.untold(cell, CONTROL) and CONTROL not in _cells.failed(cell)

    def look(self, cell: FinishedCell) -> Sight:
        failed = _cells.failed(cell.result)
        if not failed:
            return Sight(True, "every test passes", ("suite/junit.xml",))
        why = f"{len(failed)} tests fail for the cause {cell.result.cause}: {cell.result.reason}"
        return Sight(
            False, f"a box without the jailer starts, and yet {why}", ("suite/junit.xml", "probes.json")
        )
