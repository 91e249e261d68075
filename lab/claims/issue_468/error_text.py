"""What boxlite says."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class ErrorText(Claim):
    order = 30
    quote = _cells.ERROR_TEXT
    check = "whether boxlite says so where bubblewrap may not be executed"
    only = "only a cell in which bubblewrap may not be executed shows it (variant apparmor-bwrap-exec-deny)"

    def concerns(self, cell: CellResult) -> bool:
        return _cells.blocked_by(cell, _cells.NOT_EXECUTED)

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if self.quote in words.text:
            return Sight(True, "boxlite says so", (words.file,))
        if ran := _cells.line(words.text, _cells.BWRAP_FAILED):
            return Sight(False, f"it says: {ran}", (words.file,))
        return Sight(None, "what boxlite says of bubblewrap was not gathered")
