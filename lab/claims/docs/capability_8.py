"""The line to look for in the kernel's log."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.evidence import KERNEL_FILE
from lab.upstream.finished import FinishedCell

ELSEWHERE = "Ubuntu's kernel confines bubblewrap only once it has made its namespace, and may deny another one"


class Capability8(UnderPolicy):
    order = 90
    quote = 'Look for: apparmor="DENIED" ... comm="bwrap" capability=8'
    check = "whether the kernel denied bwrap that capability while the suite ran"

    def look(self, cell: FinishedCell) -> Sight:
        if not cell.evidence.probes.ran:
            return Sight(None, "its evidence was not gathered")
        lines = cell.evidence.denied(operation="capable")
        if not lines and not (cell.folder / KERNEL_FILE).exists():
            return Sight(None, "the kernel's log was full before the suite ended")
        denied = {(line.get("capability", "?"), line.get("comm", "?")) for line in lines}
        shown = ", ".join(f"capability {number} to {program}" for number, program in sorted(denied))
        files = tuple(cell.refusals) or (KERNEL_FILE,)
        what = f"it denied {shown or 'no capability'}"
        if ("8", "bwrap") in denied:
            return Sight(True, what, files)
        # Which capability is asked for first depends on when the profile begins to confine bubblewrap.
        if not _cells.is_ubuntu(cell.result, "24.04"):
            return Sight(None, f"{what}; {ELSEWHERE}", files)
        return Sight(False, what, files)
