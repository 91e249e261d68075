"""What boxlite says."""

from lab.claims._base import Sight
from lab.claims.issue_468 import _host
from lab.claims.issue_468._host import UnderPolicy
from lab.upstream.finished import FinishedCell


class ErrorText(UnderPolicy):
    order = 30
    quote = "failed to run bwrap: Permission denied (os error 13)"
    check = "whether boxlite says so under the policy whose audit line the report shows"

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if self.quote in words.text:
            return Sight(True, "boxlite says so", (words.file,))
        # `can_create_user_namespace` in boxlite's jailer/bwrap.rs has the report's words for a bubblewrap that
        # could not be started, and these for one that ran and failed.
        if ran := _host.line(words.text, _host.BWRAP_FAILED):
            other = "the report's words are those of a bubblewrap that cannot be executed: another cause"
            return Sight(False, f"it says: {ran}; {other}", (words.file,))
        return Sight(None, "what boxlite says of bubblewrap was not gathered")
