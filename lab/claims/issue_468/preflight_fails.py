"""Where boxlite fails."""

from lab.claims._base import Sight
from lab.claims.issue_468 import _host
from lab.claims.issue_468._host import WhereBlocked
from lab.upstream.recorded import Recorded


class PreflightFails(WhereBlocked):
    order = 20
    quote = (
        "The failure surfaces during the box start preflight as: ... "
        "Sandbox preflight failed: bwrap cannot create user namespaces."
    )
    check = "whether boxlite says so, to its caller or in its log"

    def look(self, cell: Recorded) -> Sight:
        told = cell.told
        if _host.PREFLIGHT in told.said:
            return Sight(True, "boxlite says so to its caller", ("junit.xml",))
        if _host.PREFLIGHT in told.logged:
            return Sight(True, f"boxlite says so in its log; its caller gets: {told.said}", (told.file,))
        if not told.file:
            return Sight(None, "no log of boxlite's was gathered")
        return Sight(False, f"boxlite says: {told.essence}", (told.file,))
