"""What the preflight is."""

from lab.claims._base import Sight
from lab.claims.issue_468 import _host
from lab.claims.issue_468._host import WhereBlocked
from lab.upstream.recorded import Recorded


class Libcontainer(WhereBlocked):
    order = 70
    quote = "the libcontainer-driven preflight in the jailer"
    check = "which part of boxlite says that the preflight failed, and what it ran"

    def look(self, cell: Recorded) -> Sight:
        told = cell.told
        if _host.PREFLIGHT not in told.text:
            return Sight(None, "boxlite's words were not gathered, or tell of no preflight")
        if "libcontainer" in f"{told.module} {told.text}":
            return Sight(True, f"{told.module or 'boxlite'} says so", (told.file,))
        if ran := _host.line(told.text, _host.BWRAP_FAILED):
            return Sight(False, f"it is bubblewrap alone: {told.module or 'boxlite'} says: {ran}", (told.file,))
        return Sight(None, "boxlite does not say what it ran")
