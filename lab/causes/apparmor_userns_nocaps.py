"""An AppArmor profile that allows a user namespace but denies the capabilities inside it."""

from lab.causes._base import Cause, Shown, bubblewrap_failed, proved_if, relevant_programs
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# capabilities(7): needed in the namespace to mount, and to drop capabilities.
SYS_ADMIN, SETPCAP = "21", "8"
# The switch of Ubuntu's policy; other kernels do not have it.
SWITCH = "kernel.apparmor_restrict_unprivileged_userns"


class ApparmorUsernsNocaps(Cause):
    order = 200  # After every cause that denies the namespace itself; see `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "AppArmor lets bubblewrap make a user namespace but denies it every capability inside, so bubblewrap "
        "cannot set up the sandbox. Since 24.04 this is Ubuntu's policy (profile unprivileged_userns) for "
        "programs without a profile of their own."
    )
    # The sysctl of Ubuntu's kernels for this policy, which boxlite reads first.
    blamed_by = (f"({SWITCH}=1)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        bwrap = evidence.probes.bwrap_user
        stripped = evidence.probes.unshare_user.worked and not evidence.probes.unshare_user_root.worked
        if lines := capability_denials(evidence):
            line = lines[0]
            where = f"{line.get('comm')} under profile {line.get('profile')}"
            why = f"AppArmor denied {line.get('capname')} to {where}"
        elif not bwrap.worked and (lines := profile_transitions(evidence)):
            # The kernel logs the denial of a capability only once, but this line each time.
            line = lines[0]
            where = f"profile {line.get('target')}"
            why = f"AppArmor moved {line.get('comm')} into {where} when it made its namespace"
        elif stripped and bubblewrap_failed(evidence) and evidence.sysctls.get(SWITCH) == "1":
            # Without a log, as on a user's own host.
            return Shown(Confidence.LIKELY, f"`unshare -U` works and `unshare -Ur` does not, and {SWITCH} is 1")
        else:
            return None
        return proved_if(stripped and not bwrap.worked, why, ": `unshare -U` works and `unshare -Ur` does not")


def capability_denials(evidence: Evidence) -> list[dict[str, str]]:
    """Return the denials, to bubblewrap or under its profile, of a capability that the sandbox needs."""
    # The kernel logs a denial only once: the line for bwrap may be missing after the one for boxlite's thread,
    # which the same profile confines.
    return [
        line
        for line in evidence.denied(operation="capable")
        if line.get("capability") in (SYS_ADMIN, SETPCAP)
        and (line.get("comm") in relevant_programs(evidence) or line.get("profile") in evidence.profiles)
    ]


def profile_transitions(evidence: Evidence) -> list[dict[str, str]]:
    """Return the audit lines where AppArmor moved a program into another profile as it made a namespace.

    Ubuntu's kernels do this.
    """
    return [
        line
        for line in evidence.audit
        if line.get("apparmor") == "AUDIT"
        and line.get("operation") == "userns_create"
        and "target" in line
        and line.get("comm") in relevant_programs(evidence)
    ]
