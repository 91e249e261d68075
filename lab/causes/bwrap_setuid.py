"""A bubblewrap that is setuid root and refuses to run like that."""

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# Only bubblewrap prints this, and only for this reason.
TEXT = "setuid use of bubblewrap is not supported"


class BwrapSetuid(Cause):
    order = 50  # bubblewrap checks this first, before it makes any namespace.
    breaks = Needs.SANDBOX
    explanation = (
        "The system's bubblewrap is setuid root, and newer releases of bubblewrap refuse to run setuid. "
        "boxlite selects it all the same, because it still prints its version."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        if not evidence.probes.bwrap_user.failed_with(TEXT):
            return None
        return Shown(Confidence.PROVED, f"bubblewrap prints: {TEXT}")
