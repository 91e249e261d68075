"""A /dev/kvm that the user may not open."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown, proved_if
from lab.causes.apparmor_kvm_deny import device_denials
from lab.evidence import Evidence
from lab.record import Needs

# boxlite 0.10.8's message.
TEXT = "KVM is available but access is denied"


class KvmDenied(Cause):
    order = 20  # Checked together with its absence; only one of the two is possible.
    breaks = Needs.RUNTIME
    explanation = (
        "The user may not open /dev/kvm, and every box is a virtual machine that needs it. On Debian and "
        "Ubuntu it belongs to the group kvm, and a user who is added to this group must log in again."
    )
    blamed_by = (TEXT,)

    def shown(self, evidence: Evidence) -> Shown | None:
        denied = evidence.probes.open_kvm.failed_with(PERMISSION_DENIED)
        if not denied and not evidence.says(TEXT):
            return None
        # The kernel asks AppArmor only after the file's permissions allowed it.
        if device_denials(evidence):
            return None
        return proved_if(denied, "boxlite may not use KVM", ", and opening /dev/kvm fails with EACCES")
