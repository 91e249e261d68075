"""A seccomp filter that lets no namespace be made."""

from lab.causes._base import NOT_PERMITTED, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class Seccomp(Cause):
    order = 90  # A filter is asked before the kernel looks at the call at all.
    breaks = Needs.SANDBOX
    explanation = (
        "A seccomp filter refuses the calls that make a namespace, which the jailer's sandbox begins with. "
        "Docker's default filter does so for containers without CAP_SYS_ADMIN, and podman's does not."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        if not evidence.probe("unshare_nothing").failed_with(NOT_PERMITTED):
            return None
        return Shown(
            Confidence.PROVED,
            "unshare(0), which asks for nothing and which the kernel grants to everyone, is refused: EPERM",
        )
