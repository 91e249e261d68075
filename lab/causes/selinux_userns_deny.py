"""An SELinux policy that lets no user namespace be made."""

from lab.causes._base import Cause, Shown, makers
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class SelinuxUsernsDeny(Cause):
    order = 130  # See `userns_sysctl`. Beside AppArmor's: a host uses one of the two.
    breaks = Needs.SANDBOX
    explanation = (
        "SELinux's policy does not allow bubblewrap to make the user namespace that the jailer's sandbox "
        "begins with (class user_namespace, permission create). The kernel's audit line names the domain in "
        "which bubblewrap runs."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = [
            line
            for line in evidence.avc_denied("create", tclass="user_namespace", permissive="0")
            if line.get("comm") in makers(evidence)
        ]
        if not lines:
            return None
        blocked = not evidence.probe("bwrap_user").worked
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"SELinux denied {lines[0].get('comm')} in {lines[0].get('scontext')} to make a user namespace",
        )
