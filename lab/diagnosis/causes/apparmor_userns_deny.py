"""An AppArmor profile that lets no user namespace be made."""

from lab.diagnosis.causes._base import NAMESPACE_MAKERS, Cause, Shown
from lab.diagnosis.evidence import Evidence
from lab.results import Confidence, Needs


class ApparmorUsernsDeny(Cause):
    order = 120  # See `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile that confines bubblewrap has no rule `userns`, so that the kernel refuses it the "
        "user namespace that the jailer's sandbox begins with. The kernel's audit line names the profile."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = [
            line for line in evidence.denied(operation="userns_create") if line.get("comm") in NAMESPACE_MAKERS
        ]
        if not lines:
            return None
        blocked = not evidence.probe("bwrap_user").worked
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"AppArmor denied userns_create to {lines[0].get('comm')} by profile {lines[0].get('profile')}",
        )
