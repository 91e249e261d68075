"""A /proc that is partly hidden."""

from lab.causes._base import NOT_PERMITTED, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class MaskedProc(Cause):
    order = 300  # bubblewrap mounts a /proc when it may mount at all.
    breaks = Needs.SANDBOX
    explanation = (
        "Parts of /proc are hidden by mounts upon them, as in every container that is not privileged. The "
        "kernel then lets no user namespace mount a /proc of its own, which would show them and which the "
        "jailer's sandbox needs."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        masks, user = evidence.probe("proc_unmasked"), evidence.probe("bwrap_user")
        if masks.worked or None in (masks.status, user.status):
            return None
        if not user.worked:
            # Something else keeps bubblewrap from coming to its /proc.
            return Shown(Confidence.LIKELY, f"upon /proc are mounted: {masks.stderr}")
        if not evidence.probe("bwrap_all").failed_with(NOT_PERMITTED):
            return None
        return Shown(
            Confidence.PROVED,
            f"bubblewrap may make its namespaces and mount no /proc, upon which are mounted: {masks.stderr}",
        )
