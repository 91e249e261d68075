"""The kernel's audit line."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderUbuntusPolicy
from lab.evidence import KERNEL_FILE
from lab.upstream.finished import FinishedCell


class AuditLine(UnderUbuntusPolicy):
    order = 40
    quote = (
        'audit: type=1400 apparmor="DENIED" operation="capable" profile="unprivileged_userns" capability=21 '
        'capname="sys_admin"'
    )
    check = "whether the kernel logged such a line while the suite ran"
    measured = (
        "it does, for boxlite's own test of clone() (comm tokio-rt-worker), which says nothing about "
        f"bubblewrap: the line is there where boxlite works, too ({_cells.SOURCE})"
    )

    def look_there(self, cell: FinishedCell) -> Sight:
        if not cell.evidence.probes.ran:
            return Sight(None, "its evidence was not gathered")
        denied = cell.evidence.denied(
            operation="capable", profile=_cells.PROFILE, capability="21", capname="sys_admin"
        )
        # The lab's own probe runs after the suite.
        lines = [line for line in denied if line.get("comm") != "unshare"]
        if not lines and not (cell.folder / KERNEL_FILE).exists():
            return Sight(None, "the kernel's log was full before the suite ended")
        if not lines:
            return Sight(False, "it did not", (KERNEL_FILE,))
        programs = sorted({line.get("comm", "?") for line in lines})
        nothing = "" if "bwrap" in programs else ", which says nothing about bubblewrap"
        return Sight(True, f"it did, for {', '.join(programs)}{nothing}", tuple(cell.refusals))
