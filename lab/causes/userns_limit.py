"""The limit on the number of user namespaces."""

from lab.causes._base import NO_SPACE, Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

SYSCTL = "user.max_user_namespaces"


class UsernsLimit(Cause):
    order = 110  # See `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "The number of user namespaces that this host allows, user.max_user_namespaces, is 0 or used up, and "
        "the jailer's sandbox begins with one. Hardening guides set it to 0."
    )
    blamed_by = (f"({SYSCTL}=0)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        limit = evidence.sysctls.get(SYSCTL)
        refused = evidence.probe("unshare_user").failed_with(NO_SPACE)
        if limit != "0" and not refused:
            return None
        confidence = Confidence.PROVED if limit == "0" and refused else Confidence.LIKELY
        shown = " and `unshare -U` is refused: ENOSPC" if refused else ""
        return Shown(confidence, f"{SYSCTL} is {limit}{shown}")
