"""An AppArmor profile that lets a user namespace be made and takes its capabilities."""

from lab.diagnosis.causes._base import NAMESPACE_MAKERS, Cause, Shown, proved_if
from lab.diagnosis.evidence import Evidence
from lab.results import Needs

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
        # Where bubblewrap works, what a probe without it was denied explains nothing.
        makers = ("bwrap",) if evidence.probe("bwrap_user").worked else NAMESPACE_MAKERS
        # The kernel does not repeat a denial: bwrap's own may be missing behind that of boxlite's thread, which
        # is confined by the same profile.
        lines = [
            line
            for line in evidence.denied(operation="capable")
            if line.get("capability") in (SYS_ADMIN, SETPCAP)
            and (line.get("comm") in makers or line.get("profile", "") == evidence.profile)
        ]
        if not lines:
            return None
        line = lines[0]
        denied = f"AppArmor denied {line.get('capname')} to {line.get('comm')} by profile {line.get('profile')}"
        stripped = evidence.probe("unshare_user").worked and not evidence.probe("unshare_user_root").worked
        return proved_if(stripped, denied, ": `unshare -U` works and `unshare -Ur` does not")
