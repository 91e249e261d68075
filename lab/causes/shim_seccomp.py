"""boxlite's own seccomp filter, under which its shim runs in the sandbox."""

import re

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

SHIM = "boxlite-shim"
# signal(7): the kernel sends it for a system call that the filter does not allow.
SIGSYS = "31"
# What the shim of boxlite 0.10.8 writes into its box's folder when that signal ends it; measured on debian-13.
WRITTEN = '"signal":"SIGSYS"'
# boxlite 0.10.8's message, and how boxlite 0.5 and a shell print the shim's exit status: 128 + SIGSYS.
TEXT = "seccomp violation (SIGSYS)"
STATUS = re.compile(r"\bexit[ _](?:code|status)[:=]? ?159\b", re.IGNORECASE)


class ShimSeccomp(Cause):
    order = 400  # The shim puts itself under the filter after bubblewrap started it.
    breaks = Needs.SANDBOX
    explanation = (
        "The kernel ended boxlite's shim with SIGSYS, because it made a system call that boxlite's own seccomp "
        "filter does not allow. Which calls it makes depends on the host's C library, kernel and processor, "
        "and on what the box does; boxlite 0.10 filters only a box without a network."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        for line in evidence.audit:
            if line.get("sig") == SIGSYS and SHIM in (line.get("comm"), line.get("exe", "").rpartition("/")[2]):
                call = f" for system call {line['syscall']}" if "syscall" in line else ""
                return Shown(Confidence.PROVED, f"the kernel ended {SHIM} with SIGSYS{call}")
        if any(WRITTEN in log for log in evidence.logs):
            return Shown(Confidence.PROVED, f"{SHIM} wrote that SIGSYS ended it")
        if evidence.boxlite_says(TEXT):
            return Shown(Confidence.LIKELY, f"boxlite says: {TEXT}")
        if any(STATUS.search(said) for said in evidence.said):
            return Shown(Confidence.LIKELY, "the shim's exit status is 159, which is 128 + SIGSYS")
        return None
