"""A /proc that is partly hidden."""

from lab.diagnosis.causes._base import NOT_PERMITTED, Cause, Shown
from lab.diagnosis.evidence import Evidence
from lab.results import Confidence, Needs


class MaskedProc(Cause):
    order = 300  # bubblewrap mounts a /proc when it may mount at all.
    breaks = Needs.SANDBOX
    explanation = (
        "Parts of /proc are hidden by mounts upon them, as in every container that is not privileged. The "
        "kernel then lets no user namespace mount a /proc of its own, which would show them and which the "
        "jailer's sandbox needs."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        masks = evidence.probe("proc_unmasked")
        refused = evidence.probe("bwrap_all").failed_with(NOT_PERMITTED)
        if masks.worked or masks.status is None or not refused or not evidence.probe("bwrap_user").worked:
            return None
        return Shown(
            Confidence.PROVED,
            f"bubblewrap may make its namespaces and mount no /proc, upon which are mounted: {masks.stderr}",
        )
