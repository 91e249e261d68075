"""The symptom on Ubuntu 24.04."""

from lab.claims._base import Sight
from lab.claims._cells import UnderPolicy
from lab.upstream.finished import FinishedCell

TIMEOUT = "Timeout waiting for guest ready"
EXITED = "VM subprocess exited before guest became ready"


class PolicyTimeout(UnderPolicy):
    order = 50
    quote = f'Box creation fails with "{TIMEOUT} (30s)" or "{EXITED}" on Ubuntu 24.04.'
    check = "whether boxlite says one of the two under that policy"

    def look(self, cell: FinishedCell) -> Sight:
        words = cell.words
        if not words.said:
            return Sight(None, "what boxlite says was not gathered")
        if found := next((text for text in (TIMEOUT, EXITED) if text in words.text), None):
            return Sight(True, f"it says: {found}", (words.file,) if words.file else ())
        first = next(test for test in cell.result.tests if test.outcome.is_failure)
        return Sight(
            False, f"after {first.seconds:.0f} s it says: {words.said.splitlines()[0]}", ("suite/junit.xml",)
        )
