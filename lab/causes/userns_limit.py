"""The limit on the number of user namespaces."""

from lab.causes._base import NO_SPACE, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

SYSCTL = "user.max_user_namespaces"


class UsernsLimit(Cause):
    order = 110  # See `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "The host's limit on user namespaces, user.max_user_namespaces, is 0 or reached, and the jailer's "
        "sandbox needs a user namespace. Hardening guides set the limit to 0."
    )
    blamed_by = (f"({SYSCTL}=0)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        limit = evidence.sysctls.get(SYSCTL)
        made = evidence.probes.unshare_user
        refused = made.failed_with(NO_SPACE)
        if made.worked or (limit != "0" and not refused):
            return None
        confidence = Confidence.PROVED if limit == "0" and refused else Confidence.LIKELY
        proof = " and `unshare -U` fails with ENOSPC" if refused else ""
        return Shown(confidence, f"{SYSCTL} is {limit}{proof}")
