"""An AppArmor profile that lets bubblewrap mount nothing."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown, makers
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# bubblewrap's words of its first mount alone, which takes / out of the host's sight.
FIRST_MOUNT = f"Failed to make / slave: {PERMISSION_DENIED}"


class ApparmorMountDeny(Cause):
    order = 220  # The namespaces are there, with their capabilities; mounting is what those are for.
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile lets bubblewrap make its namespaces and mount nothing in them, so that it can set "
        "up no sandbox. Docker's profile for containers refuses every mount, and leaves no line in the log."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        bwrap = evidence.probe("bwrap_user")
        lines = [line for line in evidence.denied(operation="mount") if line.get("comm") in makers(evidence)]
        if lines:
            return Shown(
                Confidence.LIKELY if bwrap.worked else Confidence.PROVED,
                f"AppArmor denied {lines[0].get('comm')} to mount by profile {lines[0].get('profile')}",
            )
        # A rule that denies expressly is not logged.
        if evidence.profile and bwrap.failed_with(FIRST_MOUNT):
            return Shown(
                Confidence.LIKELY,
                f"under {evidence.profile} bubblewrap makes its namespaces; its first mount gives EACCES",
            )
        return None
