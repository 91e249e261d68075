"""An AppArmor profile that cannot name what bubblewrap opens."""

from lab.causes._base import Cause, Shown, makers
from lab.causes.apparmor_userns_nocaps import stripping, transitions
from lab.evidence import Evidence
from lab.record import Confidence, Needs

INFO = "Failed name lookup - disconnected path"
EACCES = "-13"


class ApparmorDisconnected(Cause):
    # The namespace is there, and bubblewrap opens its uid map; it needs no capability before it writes to that.
    order = 190
    breaks = Needs.SANDBOX
    explanation = (
        "An AppArmor profile that confines bubblewrap has no flag attach_disconnected, so that the kernel "
        "cannot name the files that it opens out of its namespace, and refuses them. It does so in complain "
        "mode too, and logs that it allowed them."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        # Ubuntu's policy has no such flag either, and bubblewrap fails in it at this very place. But with it
        # bubblewrap would only come as far as its first capability.
        policies = {line.get("profile") for line in stripping(evidence)} | {
            line.get("target") for line in transitions(evidence)
        }
        lines = [
            line
            for line in evidence.audit
            if line.get("profile") not in policies
            and line.get("info") == INFO
            and line.get("error") == EACCES
            and line.get("operation") == "open"
            and line.get("comm") in makers(evidence)
        ]
        if not lines:
            return None
        blocked = not evidence.probe("bwrap_user").worked
        return Shown(
            Confidence.PROVED if blocked else Confidence.LIKELY,
            f"AppArmor failed to name {lines[0].get('name')}, which {lines[0].get('comm')} opens under profile "
            f"{lines[0].get('profile')}",
        )
