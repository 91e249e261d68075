"""An AppArmor profile that denies bubblewrap its mounts, or to make them its root."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown, own
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# The operations in the kernel's audit lines, and what each is.
OPERATIONS = {"mount": "a mount", "pivotroot": "pivot_root"}
# bubblewrap prints the first only for its first mount, which separates / from the host, and the second only for
# the call that makes its mounts its root. SELinux does not decide about that call, and AppArmor gives EACCES.
FIRST_MOUNT = f"Failed to make / slave: {PERMISSION_DENIED}"
PIVOT_ROOT = f"pivot_root: {PERMISSION_DENIED}"


class ApparmorMountDeny(Cause):
    order = 220  # bubblewrap mounts after it has its namespaces and their capabilities.
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile lets bubblewrap make its namespaces but denies mounts in them, or the call "
        "pivot_root that makes them its root, so bubblewrap cannot set up the sandbox. Docker's profile for "
        "containers denies every mount without logging it."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        bwrap = evidence.probes.bwrap_user
        lines = own([each for name in OPERATIONS for each in evidence.denied(operation=name)], evidence)
        if lines:
            comm, profile = lines[0].get("comm"), lines[0].get("profile")
            return Shown(
                Confidence.LIKELY if bwrap.worked else Confidence.PROVED,
                f"AppArmor denied {comm} {OPERATIONS[lines[0]['operation']]} under profile {profile}",
            )
        # An explicit deny rule does not log.
        if evidence.profile and bwrap.failed_with(FIRST_MOUNT):
            return Shown(
                Confidence.LIKELY,
                f"under {evidence.profile} bubblewrap makes its namespaces; its first mount fails with EACCES",
            )
        if bwrap.failed_with(PIVOT_ROOT) or (bwrap.status is None and evidence.boxlite_says(PIVOT_ROOT)):
            where = f"under {evidence.profile} " if evidence.profile else ""
            return Shown(
                Confidence.LIKELY,
                f"{where}bubblewrap makes its namespaces and mounts; pivot_root fails with EACCES",
            )
        return None
