"""An AppArmor profile that denies bubblewrap every mount."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown, relevant_programs
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# bubblewrap prints this only for its first mount, which separates / from the host.
FIRST_MOUNT = f"Failed to make / slave: {PERMISSION_DENIED}"


class ApparmorMountDeny(Cause):
    order = 220  # bubblewrap mounts after it has its namespaces and their capabilities.
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile lets bubblewrap make its namespaces but denies every mount in them, so bubblewrap "
        "cannot set up the sandbox. Docker's profile for containers denies every mount without logging it."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        bwrap = evidence.probes.bwrap_user
        lines = [
            line
            for line in evidence.denied(operation="mount")
            if line.get("comm") in relevant_programs(evidence)
        ]
        if lines:
            return Shown(
                Confidence.LIKELY if bwrap.worked else Confidence.PROVED,
                f"AppArmor denied {lines[0].get('comm')} a mount under profile {lines[0].get('profile')}",
            )
        # An explicit deny rule does not log.
        if evidence.profile and bwrap.failed_with(FIRST_MOUNT):
            return Shown(
                Confidence.LIKELY,
                f"under {evidence.profile} bubblewrap makes its namespaces; its first mount fails with EACCES",
            )
        return None
