"""An AppArmor profile that denies bubblewrap a user namespace."""

from lab.causes._base import Cause, Shown, relevant_programs
from lab.evidence import Evidence
from lab.record import Confidence, Needs

UNCONFINED = "unconfined"


class ApparmorUsernsDeny(Cause):
    order = 120  # See `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "AppArmor denies bubblewrap the user namespace that the jailer's sandbox needs: the profile that "
        "confines bubblewrap has no rule `userns`, or the kernel restricts programs without a profile. The "
        "kernel's audit line names the profile."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = [
            line
            for line in evidence.denied(operation="userns_create")
            if line.get("comm") in relevant_programs(evidence)
        ]
        if not lines:
            return None
        blocked = not evidence.probes.bwrap_user.worked
        profile = lines[0].get("profile")
        # Ubuntu's kernels log `unconfined` if the profile that they would switch to is not loaded.
        where = (
            "without a profile: the kernel restricts unconfined programs"
            if profile == UNCONFINED
            else f"under profile {profile}"
        )
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"AppArmor denied userns_create to {lines[0].get('comm')} {where}",
        )
