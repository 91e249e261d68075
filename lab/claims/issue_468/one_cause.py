"""Whether the report's error text and its audit line tell of one failure."""

from lab.claims import _cells
from lab.claims._base import Claim, Sight
from lab.claims.issue_468.audit_line import AuditLine
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class OneCause(Claim):
    order = 45
    quote = f'{_cells.ERROR_TEXT} ... Kernel audit log ...: operation="capable" ... capname="sys_admin"'
    check = "whether a cell that shows one of the two shows the other as well"
    only = "only a cell under Ubuntu 24.04's policy, or in which bubblewrap may not be executed, shows it"

    def concerns(self, cell: CellResult) -> bool:
        return _cells.blocked_by(cell, _cells.POLICY, _cells.NOT_EXECUTED)

    def look(self, cell: FinishedCell) -> Sight:
        words, audited = cell.words, AuditLine().look_there(cell)
        said = _cells.ERROR_TEXT in words.text
        ran = _cells.line(words.text, _cells.BWRAP_FAILED)
        if audited.holds is None or not (said or ran):
            return Sight(None, "what boxlite or the kernel says was not gathered")
        files = (words.file, *audited.files)
        if said and audited.holds:
            return Sight(True, "boxlite says the one, and the kernel logs the other", files)
        if said:
            return Sight(False, "boxlite says so without the audit line: bubblewrap did not even start", files)
        # `can_create_user_namespace` in boxlite's jailer/bwrap.rs has the report's words for a bubblewrap that
        # could not be started, and these for one that ran and failed.
        return Sight(False, f"bubblewrap does start, and boxlite says other words: {ran}", files)
