"""An SELinux policy that denies bubblewrap every mount."""

from lab.causes._base import Cause, Shown, own
from lab.evidence import Evidence
from lab.record import Confidence, Needs


class SelinuxMountDeny(Cause):
    order = 230  # See `apparmor_mount_deny`. A host uses only one of the two.
    breaks = Needs.SANDBOX
    explanation = (
        "The SELinux policy lets bubblewrap make its namespaces but denies it the mounts that the jailer's "
        "sandbox consists of (permission mounton), as policies do to confined users. The kernel's audit line "
        "names the domain in which bubblewrap runs."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = own(evidence.avc_denied("mounton", permissive="0"), evidence)
        if not lines:
            return None
        blocked = not evidence.probes.bwrap_user.worked
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"SELinux denied {lines[0].get('comm')} in {lines[0].get('scontext')} a mount on "
            f"{lines[0].get('path')}",
        )
