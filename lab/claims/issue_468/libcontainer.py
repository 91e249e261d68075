"""What the preflight is."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import WhereBlocked
from lab.upstream.finished import FinishedCell


class Libcontainer(WhereBlocked):
    order = 70
    quote = "the libcontainer-driven preflight in the jailer"
    check = "which part of boxlite says that the preflight failed, and what it ran"

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if _cells.PREFLIGHT not in words.text:
            return Sight(None, "boxlite's words were not gathered, or tell of no preflight")
        if "libcontainer" in f"{words.module} {words.text}":
            return Sight(True, f"{words.module or 'boxlite'} says so", (words.file,))
        if ran := _cells.line(words.text, _cells.BWRAP_FAILED):
            return Sight(
                False, f"only bubblewrap failed: {words.module or 'boxlite'} says: {ran}", (words.file,)
            )
        return Sight(None, "boxlite does not say what it ran")
