"""A bubblewrap that is setuid and does not want to be."""

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# Said by bubblewrap alone, and for this reason alone.
TEXT = "setuid use of bubblewrap is not supported"


class BwrapSetuid(Cause):
    order = 50  # The first thing that bubblewrap looks at, before it asks the kernel for anything.
    breaks = Needs.SANDBOX
    explanation = (
        "The system's bubblewrap is setuid root, and newer releases of it refuse to start like that. boxlite "
        "takes it all the same, because it can still tell its version."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        if not evidence.probe("bwrap_user").failed_with(TEXT):
            return None
        return Shown(Confidence.PROVED, f"bubblewrap says: {TEXT}")
