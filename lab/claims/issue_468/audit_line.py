"""The kernel's audit line."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.evidence import KERNEL_FILE
from lab.upstream.finished import FinishedCell


class AuditLine(UnderPolicy):
    order = 40
    quote = (
        'audit: type=1400 apparmor="DENIED" operation="capable" profile="unprivileged_userns" capability=21 '
        'capname="sys_admin"'
    )
    check = "whether the kernel logged such a line while the suite ran"

    def look(self, cell: FinishedCell) -> Sight:
        if not cell.evidence.probes.ran:
            return Sight(None, "its evidence was not gathered")
        lines = cell.evidence.denied(
            operation="capable", profile=_cells.PROFILE, capability="21", capname="sys_admin"
        )
        if not lines and not (cell.folder / KERNEL_FILE).exists():
            return Sight(None, "the kernel's log was full before the suite ended")
        if not lines:
            return Sight(False, "it did not", (KERNEL_FILE,))
        programs = ", ".join(sorted({line.get("comm", "?") for line in lines}))
        return Sight(True, f"it did, for {programs}", tuple(cell.refusals))
