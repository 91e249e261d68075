"""Debian's own switch for user namespaces."""

from lab.causes._base import NOT_PERMITTED, Cause, Shown, proved_if
from lab.evidence import Evidence
from lab.record import Needs

SYSCTL = "kernel.unprivileged_userns_clone"


class UsernsSysctl(Cause):
    # Of a new user namespace the kernel asks in this order: this switch, the limit, the security modules; then
    # come the capabilities inside (`ksys_unshare` in kernel/fork.c, `create_user_ns` in user_namespace.c).
    order = 100
    breaks = Needs.SANDBOX
    explanation = (
        "The kernel is told to let no ordinary user make a user namespace, which the jailer's sandbox begins "
        "with. The switch, kernel.unprivileged_userns_clone, exists on Debian's and Ubuntu's kernels, and "
        "hardening guides set it to 0."
    )
    blamed_by = (f"({SYSCTL}=0)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        if evidence.sysctls.get(SYSCTL) != "0":
            return None
        refused = evidence.probe("unshare_user").failed_with(NOT_PERMITTED)
        return proved_if(refused, f"{SYSCTL} is 0", " and `unshare -U` is refused: EPERM")
