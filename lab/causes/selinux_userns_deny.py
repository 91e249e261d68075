"""An SELinux policy that denies bubblewrap a user namespace."""

from lab.causes._base import Cause, Shown, own
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class SelinuxUsernsDeny(Cause):
    order = 130  # See `userns_sysctl`. The same position as AppArmor's: a host uses only one of the two.
    breaks = Needs.SANDBOX
    explanation = (
        "The SELinux policy does not allow bubblewrap to make the user namespace that the jailer's sandbox "
        "needs (class user_namespace, permission create). The kernel's audit line names the domain in which "
        "bubblewrap runs."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = own(evidence.avc_denied("create", tclass="user_namespace", permissive="0"), evidence)
        if not lines:
            return None
        blocked = not evidence.probes.bwrap_user.worked
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"SELinux denied {lines[0].get('comm')} in {lines[0].get('scontext')} a user namespace",
        )
