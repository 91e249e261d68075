"""An AppArmor profile under which the kernel cannot resolve the files that bubblewrap opens."""

from lab.causes._base import PERMISSION_DENIED, RESTRICTION, UID_MAP, Cause, Shown, bubblewrap_says, own
from lab.causes.apparmor_userns_nocaps import denials
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
        # bubblewrap would fail at its first capability, so that policy, if it is enforced, is another cause.
        policies = {line.get("profile") for line in denials(evidence)}
        lines = [
            line
            for line in own(evidence.audit, evidence)
            if line.get("profile") not in policies
            and line.get("info") == INFO
            and line.get("error") == EACCES
            and line.get("operation") == "open"
        ]
        if lines:
            return Shown(
                Confidence.LIKELY if evidence.probes.bwrap_user.worked else Confidence.PROVED,
                f"AppArmor could not resolve {lines[0].get('name')}, which {lines[0].get('comm')} opens under "
                f"profile {lines[0].get('profile')}",
            )
        # Without a log: the restriction is on and takes no capability, so its profile is in complain mode.
        words = f"{UID_MAP}: {PERMISSION_DENIED}"
        in_force = evidence.sysctls.get(RESTRICTION) == "1" and evidence.probes.unshare_user_root.worked
        if in_force and not evidence.audit and bubblewrap_says(words, evidence):
            why = f"{RESTRICTION} is 1, `unshare -Ur` works all the same, and bubblewrap says: {words}"
            return Shown(Confidence.LIKELY, why)
        return None
