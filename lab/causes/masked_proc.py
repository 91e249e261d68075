"""A /proc that is partly hidden by other mounts."""

from lab.causes._base import NOT_PERMITTED, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# How bubblewrap's words about this mount end; AppArmor and SELinux deny it with another error.
TEXT = f"/proc: {NOT_PERMITTED}"


class MaskedProc(Cause):
    order = 300  # bubblewrap mounts /proc after its first mounts.
    breaks = Needs.SANDBOX
    explanation = (
        "Mounts hide parts of /proc, as in every container that is not privileged. The kernel then does not "
        "let a user namespace mount its own /proc, which would reveal these parts and which the jailer's "
        "sandbox needs."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        masks, user = evidence.probes.proc_unmasked, evidence.probes.bwrap_user
        if masks.worked or None in (masks.status, user.status):
            return None
        if not user.worked:
            # Something else stops bubblewrap before it mounts /proc.
            return Shown(Confidence.LIKELY, f"these mounts hide parts of /proc: {masks.stderr}")
        if not evidence.probes.bwrap_all.failed_with(TEXT):
            return None
        return Shown(
            Confidence.PROVED,
            "bubblewrap can make its namespaces but cannot mount /proc, parts of which are hidden by mounts: "
            f"{masks.stderr}",
        )
