"""An AppArmor profile that lets no user namespace be made."""

from lab.causes._base import Cause, Shown, makers
from lab.evidence import Evidence
from lab.record import Confidence, Needs

UNCONFINED = "unconfined"


class ApparmorUsernsDeny(Cause):
    order = 120  # See `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile that confines bubblewrap has no rule `userns`, or none confines it and the kernel "
        "restricts that: it is refused the user namespace that the jailer's sandbox begins with. The kernel's "
        "audit line names the profile."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = [
            line for line in evidence.denied(operation="userns_create") if line.get("comm") in makers(evidence)
        ]
        if not lines:
            return None
        blocked = not evidence.probe("bwrap_user").worked
        profile = lines[0].get("profile")
        # Of Ubuntu's kernels, where the profile that they would put it into is not loaded.
        by = (
            "by no profile: the kernel restricts what is unconfined"
            if profile == UNCONFINED
            else f"by profile {profile}"
        )
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"AppArmor denied userns_create to {lines[0].get('comm')} {by}",
        )
