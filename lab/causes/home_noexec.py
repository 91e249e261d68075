"""A home directory that is mounted noexec."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class HomeNoexec(Cause):
    # boxlite unpacks its own programs below the home and runs them from there; mke2fs, for the box's disk, runs
    # before bubblewrap.
    order = 30
    breaks = Needs.BOX
    explanation = (
        "The user's home directory is mounted with the option noexec, and boxlite runs its bundled programs "
        "from there (~/.local/share/boxlite). No file on that mount can be executed, whatever its permissions "
        "are."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        if not evidence.probes.exec_home.failed_with(PERMISSION_DENIED):
            return None
        # Without the option something else denies the execution, which is another cause.
        if not evidence.probes.home_allows_exec.failed_with("noexec"):
            return None
        return Shown(
            Confidence.PROVED,
            "the home directory is mounted noexec: executing a program in it fails with EACCES",
        )
