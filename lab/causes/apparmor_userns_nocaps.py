"""An AppArmor profile that lets a user namespace be made and takes its capabilities."""

from lab.causes._base import Cause, Shown, makers, proved_if
from lab.evidence import Evidence
from lab.record import Needs

# capabilities(7): what a process needs in its namespace to mount, and to drop capabilities.
SYS_ADMIN, SETPCAP = "21", "8"


class ApparmorUsernsNocaps(Cause):
    order = 200  # Behind all that refuses the namespace itself; see `userns_sysctl`.
    breaks = Needs.SANDBOX
    explanation = (
        "AppArmor lets bubblewrap make a user namespace and then denies it every capability inside, so that it "
        "can set up no sandbox. This is Ubuntu's policy since 24.04 (profile unprivileged_userns) for programs "
        "without a profile of their own."
    )
    # The switch of Ubuntu's kernels for this policy, which boxlite reads before anything else.
    blamed_by = ("(kernel.apparmor_restrict_unprivileged_userns=1)",)

    def shown(self, evidence: Evidence) -> Shown | None:
        bwrap = evidence.probe("bwrap_user")
        if lines := stripping(evidence):
            line = lines[0]
            said = (
                f"AppArmor denied {line.get('capname')} to {line.get('comm')} by profile {line.get('profile')}"
            )
        elif bwrap.failed and (lines := transitions(evidence)):
            # The kernel does not repeat the denial of a capability; this line it writes each time.
            line = lines[0]
            said = f"AppArmor put {line.get('comm')} with its namespace into profile {line.get('target')}"
        else:
            return None
        stripped = evidence.probe("unshare_user").worked and not evidence.probe("unshare_user_root").worked
        return proved_if(stripped and not bwrap.worked, said, ": `unshare -U` works and `unshare -Ur` does not")


def stripping(evidence: Evidence) -> list[dict[str, str]]:
    """Denials of a capability without which bubblewrap can set up no sandbox, to it or in its profile."""
    # The kernel does not repeat a denial: bwrap's own may be missing behind that of boxlite's thread, which
    # is confined by the same profile.
    return [
        line
        for line in evidence.denied(operation="capable")
        if line.get("capability") in (SYS_ADMIN, SETPCAP)
        and (line.get("comm") in makers(evidence) or line.get("profile", "") == evidence.profile)
    ]


def transitions(evidence: Evidence) -> list[dict[str, str]]:
    """Where AppArmor put a program into another profile for the namespace that it made, as Ubuntu's does."""
    return [
        line
        for line in evidence.audit
        if line.get("apparmor") == "AUDIT"
        and line.get("operation") == "userns_create"
        and "target" in line
        and line.get("comm") in makers(evidence)
    ]
