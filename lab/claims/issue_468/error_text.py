"""What boxlite says."""

from lab.claims._base import Claim, Sight
from lab.claims.issue_468 import _host
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class ErrorText(Claim):
    order = 30
    quote = _host.ERROR_TEXT
    check = "whether boxlite says so where bubblewrap may not be executed"
    only = "only a cell in which bubblewrap may not be executed shows it (variant apparmor-bwrap-exec-deny)"

    def concerns(self, cell: CellResult) -> bool:
        return _host.blocked_by(cell, _host.NOT_EXECUTED)

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if self.quote in words.text:
            return Sight(True, "boxlite says so", (words.file,))
        if ran := _host.line(words.text, _host.BWRAP_FAILED):
            return Sight(False, f"it says: {ran}", (words.file,))
        return Sight(None, "what boxlite says of bubblewrap was not gathered")
