"""An AppArmor profile that allows a user namespace but denies the capabilities inside it."""

from lab.causes._base import (
    NOT_PERMITTED,
    RESTRICTED,
    RESTRICTION,
    UID_MAP,
    Cause,
    Shown,
    bubblewrap_says,
    own,
    proved_if,
)
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# capabilities(7): needed in the namespace to mount, and to drop capabilities.
SYS_ADMIN, SETPCAP = "21", "8"
# bubblewrap's words where it has its user namespace and may do nothing in it; the second without a network.
WITHOUT_CAPABILITIES = (UID_MAP, f"loopback: Failed RTM_NEWADDR: {NOT_PERMITTED}")
# Its words if the profile confined it before, so that the kernel denies the namespaces made with that one.
# bubblewrap prints them for several causes.
REFUSED = "No permissions to creat"


class ApparmorUsernsNocaps(Cause):
    order = 200  # After every cause that denies the namespace itself; see `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "AppArmor lets bubblewrap make a user namespace but denies it every capability inside, so bubblewrap "
        "cannot set up the sandbox. Since 24.04 this is Ubuntu's policy (profile unprivileged_userns) for "
        "programs without a profile of their own."
    )
    # boxlite reads this sysctl first.
    blamed_by = (f"({RESTRICTION}=1)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        said = next((words for words in WITHOUT_CAPABILITIES if bubblewrap_says(words, evidence)), None)
        lines = denials(evidence)
        if bubblewrap_says(REFUSED, evidence):
            # The kernel logs a denied capability once: that of boxlite's thread may stand for bubblewrap's.
            said = REFUSED
            thread = evidence.denied(operation="capable", capability=SYS_ADMIN)
            lines += [line for line in thread if line.get("profile") in evidence.profiles]
        if lines:
            what = lines[0].get("capname") or lines[0].get("name")
            why = f"AppArmor denied {what} to {lines[0].get('comm')} under profile {lines[0].get('profile')}"
            return proved_if(said is not None, why, f", and bubblewrap says: {said}")
        # A bug report may quote the log alone.
        wordless = evidence.probes.bwrap_user.failed and not evidence.probes.bwrap_user.stderr
        if said not in WITHOUT_CAPABILITIES and not wordless:
            return None
        # AUDIT: the kernel moves bubblewrap into the profile. With ALLOWED the profile is in complain mode.
        in_policy = {
            line.get("apparmor")
            for line in own(evidence.audit, evidence)
            if RESTRICTED in (line.get("profile"), line.get("target"))
        }
        if in_policy == {"AUDIT"}:
            why = f"AppArmor moved {evidence.programs[0]} into profile {RESTRICTED} as it made its namespace"
            return proved_if(said is not None, why, f", and bubblewrap says: {said}")
        # Without a log, as on a user's own host.
        stripped = evidence.probes.unshare_user.worked and evidence.probes.unshare_user_root.failed
        if stripped and evidence.sysctls.get(RESTRICTION) == "1" and not evidence.audit:
            probes = "`unshare -U` works and `unshare -Ur` does not"
            return Shown(Confidence.LIKELY, f"{RESTRICTION} is 1, {probes}, and bubblewrap says: {said}")
        return None


def denials(evidence: Evidence) -> list[dict[str, str]]:
    """Return what bubblewrap was denied of the capabilities that it needs, or by Ubuntu's policy.

    The policy's profile also lacks the flag attach_disconnected, so bubblewrap fails at its uid map before it
    needs a capability. The kernel logs that each time, and a capability once for a profile and a program.
    """
    return [
        line
        for line in own(evidence.denied(), evidence)
        if line.get("profile") == RESTRICTED
        or (line.get("operation") == "capable" and line.get("capability") in (SYS_ADMIN, SETPCAP))
    ]
