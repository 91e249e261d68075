"""A seccomp filter that denies namespaces."""

from lab.causes._base import NOT_PERMITTED, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class Seccomp(Cause):
    order = 90  # The kernel runs the filter before the system call itself.
    breaks = Needs.SANDBOX
    explanation = (
        "A seccomp filter denies the system calls that make a namespace, which the jailer's sandbox needs. "
        "Docker's default filter does this in containers without CAP_SYS_ADMIN; podman's does not."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        if not evidence.probes.unshare_nothing.failed_with(NOT_PERMITTED):
            return None
        return Shown(
            Confidence.PROVED,
            "unshare(0), which requests nothing and which the kernel always allows, fails with EPERM",
        )
