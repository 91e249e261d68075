"""A home from which nothing can be executed."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class HomeNoexec(Cause):
    # boxlite unpacks its own programs below the home and runs them from there: mke2fs for the box's disk before
    # it comes to bubblewrap.
    order = 30
    breaks = Needs.BOX
    explanation = (
        "The user's home is mounted with the option noexec, and boxlite keeps the programs it brings along "
        "below it (~/.local/share/boxlite). Nothing there can be executed, whatever its permissions."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        if not evidence.probe("exec_home").failed_with(PERMISSION_DENIED):
            return None
        # Without the option it is another rule that forbids it, and another cause.
        if not evidence.probe("home_allows_exec").failed_with("noexec"):
            return None
        return Shown(Confidence.PROVED, "the home is mounted noexec: executing a program in it gives EACCES")
