"""A limit on the number of namespaces of another kind than user namespaces."""

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# Those that bubblewrap makes for a box. It makes the first for every sandbox.
SYSCTLS = tuple(f"user.max_{kind}_namespaces" for kind in ("mnt", "uts", "ipc", "pid"))
# bubblewrap's words for ENOSPC, whichever of its namespaces the kernel refuses.
TEXT = "namespaces exceeded (ENOSPC)"


class NamespaceLimit(Cause):
    # The kernel makes the other namespaces after the user namespace, before bubblewrap opens its uid map
    # (`copy_creds` and `copy_namespaces` in kernel/fork.c).
    order = 150
    breaks = Needs.SANDBOX
    explanation = (
        "The host's limit on a kind of namespace that the jailer's sandbox needs besides a user namespace is 0 "
        "or reached: user.max_mnt_namespaces, user.max_uts_namespaces, user.max_ipc_namespaces or "
        "user.max_pid_namespaces. The kernel's default is several thousand of each kind."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        probes = evidence.probes
        zero = [name for name in SYSCTLS if evidence.sysctls.get(name) == "0"]
        # If a user namespace alone can be made, its own limit is not what bubblewrap met.
        refused = probes.unshare_user.worked and probes.bwrap_all.failed_with(TEXT)
        if probes.bwrap_all.worked or not (zero or refused):
            return None
        if not zero:
            return Shown(
                Confidence.LIKELY,
                "`unshare -U` works and bubblewrap, which makes more namespaces, fails with ENOSPC",
            )
        why = f"{' and '.join(zero)} {'is' if len(zero) == 1 else 'are'} 0"
        if not refused:
            return Shown(Confidence.LIKELY, why)
        return Shown(Confidence.PROVED, f"{why}, and bubblewrap fails with ENOSPC although `unshare -U` works")
