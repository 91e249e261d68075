"""Debian's sysctl that denies user namespaces to ordinary users."""

from lab.causes._base import NOT_PERMITTED, Cause, Shown, proved_if
from lab.evidence import Evidence
from lab.record import Needs

SYSCTL = "kernel.unprivileged_userns_clone"


class UsernsSysctl(Cause):
    # For a new user namespace the kernel checks this sysctl, then the limit, then the security modules; the
    # capabilities inside come last (`ksys_unshare` in kernel/fork.c, `create_user_ns` in user_namespace.c).
    order = 100
    breaks = Needs.SANDBOX
    explanation = (
        "The sysctl kernel.unprivileged_userns_clone is 0: ordinary users may not make user namespaces, and "
        "the jailer's sandbox needs one. The sysctl exists in Debian's and Ubuntu's kernels, and hardening "
        "guides set it to 0."
    )
    blamed_by = (f"({SYSCTL}=0)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        made = evidence.probes.unshare_user
        # The kernel does not ask this sysctl for a user who has CAP_SYS_ADMIN.
        if evidence.sysctls.get(SYSCTL) != "0" or made.worked:
            return None
        refused = made.failed_with(NOT_PERMITTED)
        return proved_if(refused, f"{SYSCTL} is 0", " and `unshare -U` fails with EPERM")
