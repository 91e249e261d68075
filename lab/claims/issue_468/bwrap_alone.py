"""bubblewrap by itself."""

from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.upstream.finished import FinishedCell

COMMAND = ("bwrap", "--unshare-user", "--bind", "/", "/", "true")


class BwrapAlone(UnderPolicy):
    order = 60
    quote = "bwrap --unshare-user --bind / / true succeeds in isolation"
    check = "whether that command works for the suite's user in the cell in which boxlite fails"

    def look(self, cell: FinishedCell) -> Sight:
        probe = cell.evidence.probes.bwrap_user
        if probe.status is None or probe.command != COMMAND:
            return Sight(None, "that command was not tried")
        if probe.worked:
            return Sight(True, "it works", ("probes.json",))
        return Sight(False, f"it fails: {probe.stderr}", ("probes.json",))
