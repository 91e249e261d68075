"""An AppArmor profile that denies bubblewrap a user namespace."""

from lab.causes._base import PERMISSION_DENIED, RESTRICTION, Cause, Shown, bubblewrap_says, own
from lab.evidence import Evidence
from lab.record import Confidence, Needs

UNCONFINED = "unconfined"
REFUSED = f"Creating new namespace failed: {PERMISSION_DENIED}"


class ApparmorUsernsDeny(Cause):
    order = 120  # See `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "AppArmor denies bubblewrap the user namespace that the jailer's sandbox needs: the profile that "
        "confines bubblewrap has no rule `userns`, or the kernel restricts programs without a profile. The "
        "kernel's audit line names the profile."
    )

    # Also if the profile of Ubuntu's policy is not loaded.
    blamed_by = (f"({RESTRICTION}=1)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = own(evidence.denied(operation="userns_create"), evidence)
        if not lines:
            return self._without_log(evidence)
        profile = lines[0].get("profile")
        # Ubuntu's kernels log `unconfined` if the profile that they would switch to is not loaded.
        where = (
            "without a profile: the kernel restricts unconfined programs"
            if profile == UNCONFINED
            else f"under profile {profile}"
        )
        return Shown(
            Confidence.LIKELY if evidence.probes.bwrap_user.worked else Confidence.PROVED,
            f"AppArmor denied userns_create to {lines[0].get('comm')} {where}",
        )

    @staticmethod
    def _without_log(evidence: Evidence) -> Shown | None:
        denied = evidence.probes.unshare_user.failed_with(PERMISSION_DENIED) and bubblewrap_says(
            REFUSED, evidence
        )
        if not denied or evidence.sysctls.get(RESTRICTION) != "1":
            return None
        return Shown(
            Confidence.LIKELY,
            f"{RESTRICTION} is 1, and `unshare -U` and bubblewrap fail with EACCES, as where the profile of "
            "Ubuntu's policy is not loaded",
        )
