"""A host without /dev/kvm."""

from lab.causes._base import NOT_THERE, Cause, Shown, proved_if
from lab.evidence import Evidence
from lab.record import Needs

# boxlite 0.10.8's message.
TEXT = "KVM is not available on this host"


class KvmAbsent(Cause):
    order = 10  # boxlite's runtime checks /dev/kvm first.
    breaks = Needs.RUNTIME
    explanation = (
        "This host has no /dev/kvm, and every box is a virtual machine that needs it. Either virtualization is "
        "disabled in the firmware or in the hypervisor that runs this host, or the kernel module kvm_intel or "
        "kvm_amd is not loaded."
    )
    blamed_by = (TEXT,)

    def shown(self, evidence: Evidence) -> Shown | None:
        missing = evidence.probes.open_kvm.failed_with(NOT_THERE)
        if not missing and not evidence.says(TEXT):
            return None
        return proved_if(missing, "boxlite finds no KVM", ", and there is no /dev/kvm")
