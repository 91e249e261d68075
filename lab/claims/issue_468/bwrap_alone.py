"""bubblewrap by itself."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderUbuntusPolicy
from lab.upstream.finished import FinishedCell

COMMAND = ("bwrap", "--unshare-user", "--bind", "/", "/", "true")


class BwrapAlone(UnderUbuntusPolicy):
    order = 60
    quote = "bwrap --unshare-user --bind / / true succeeds in isolation"
    check = "whether that command works for the suite's user in the cell in which boxlite fails"
    measured = f"it fails by itself: bwrap: setting up uid map: Permission denied ({_cells.SOURCE})"

    def look_there(self, cell: FinishedCell) -> Sight:
        probe = cell.evidence.probes.bwrap_user
        if probe.status is None or probe.command != COMMAND:
            return Sight(None, "that command was not tried")
        if probe.worked:
            return Sight(True, "it works", ("probes.json",))
        return Sight(False, f"it fails: {probe.stderr}", ("probes.json",))
