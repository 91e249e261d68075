"""Where boxlite fails."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import WhereBlocked
from lab.upstream.finished import FinishedCell


class PreflightFails(WhereBlocked):
    order = 20
    quote = (
        "The failure surfaces during the box start preflight as: ... "
        "Sandbox preflight failed: bwrap cannot create user namespaces."
    )
    check = "whether boxlite says so, to its caller or in its log"

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if _cells.PREFLIGHT in words.said:
            return Sight(True, "boxlite says so to its caller", ("suite/junit.xml",))
        if _cells.PREFLIGHT in words.logged:
            return Sight(True, f"boxlite says so in its log; its caller gets: {words.said}", (words.file,))
        if not words.file:
            return Sight(None, "no log of boxlite's was gathered")
        return Sight(False, f"boxlite says: {words.essence}", (words.file,))
