"""An AppArmor profile that denies /dev/kvm."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown, proved_if
from lab.evidence import Evidence
from lab.record import Needs

DEVICE = "/dev/kvm"


class ApparmorKvmDeny(Cause):
    order = 25  # The kernel asks AppArmor after it has checked the permissions of the file: see `kvm_denied`.
    breaks = Needs.RUNTIME
    explanation = (
        "An AppArmor profile that confines boxlite denies it /dev/kvm, and every box is a virtual machine that "
        "needs it. The file's permissions allow it, so membership of the group kvm does not help; the kernel's "
        "audit line names the profile."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        lines = device_denials(evidence)
        if not lines:
            return None
        opened = evidence.probes.open_kvm
        why = f"AppArmor denied {DEVICE} to {lines[0].get('comm')} under profile {lines[0].get('profile')}"
        return proved_if(opened.failed_with(PERMISSION_DENIED), why, ", and opening it fails with EACCES")


def device_denials(evidence: Evidence) -> list[dict[str, str]]:
    """Return AppArmor's denials of /dev/kvm to boxlite, or to any program if no probe could open it."""
    opened = evidence.probes.open_kvm
    return [
        line
        for line in evidence.denied(operation="open", name=DEVICE)
        if not opened.worked and (opened.status is None or line.get("profile") in evidence.profiles)
    ]
