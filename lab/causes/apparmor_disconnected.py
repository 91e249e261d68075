"""An AppArmor profile under which the kernel cannot resolve the files that bubblewrap opens."""

from lab.causes._base import Cause, Shown, relevant_programs
from lab.causes.apparmor_userns_nocaps import capability_denials, profile_transitions
from lab.evidence import Evidence
from lab.record import Confidence, Needs

INFO = "Failed name lookup - disconnected path"
EACCES = "-13"


class ApparmorDisconnected(Cause):
    # bubblewrap opens its uid map after making the namespace, and before it needs a capability.
    order = 190
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile that confines bubblewrap lacks the flag attach_disconnected, so the kernel cannot "
        "resolve the files that bubblewrap opens outside its namespace, and denies them. It denies them in "
        "complain mode too, although it logs them as allowed."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        # Ubuntu's policy lacks this flag too, and bubblewrap fails at the same point. But even with the flag
        # bubblewrap would fail at its first capability, so that policy is another cause.
        policies = {line.get("profile") for line in capability_denials(evidence)} | {
            line.get("target") for line in profile_transitions(evidence)
        }
        lines = [
            line
            for line in evidence.audit
            if line.get("profile") not in policies
            and line.get("info") == INFO
            and line.get("error") == EACCES
            and line.get("operation") == "open"
            and line.get("comm") in relevant_programs(evidence)
        ]
        if not lines:
            return None
        blocked = not evidence.probes.bwrap_user.worked
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"AppArmor could not resolve {lines[0].get('name')}, which {lines[0].get('comm')} opens under "
            f"profile {lines[0].get('profile')}",
        )
