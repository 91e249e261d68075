"""A bubblewrap that the host refuses to execute."""

from lab.causes._base import PERMISSION_DENIED, Cause, Shown, proved_if
from lab.evidence import Evidence
from lab.record import Needs

# boxlite's words for a bubblewrap that it could not start (`can_create_user_namespace` in its jailer/bwrap.rs),
# as Rust's standard library prints EACCES. For one that ran and failed it says `bwrap --unshare-user failed`.
TEXT = "failed to run bwrap: Permission denied (os error 13)"
# The file's name, of the system's bubblewrap and of the one that boxlite unpacks.
FILE = "bwrap"


class BwrapExecDenied(Cause):
    order = 40  # boxlite starts bubblewrap after its programs for the box's disk: see `home_noexec`.
    breaks = Needs.SANDBOX
    explanation = (
        "The host refuses to execute bubblewrap (EACCES), both the system's and the one that boxlite ships, so "
        "the jailer fails before it asks for a user namespace. An AppArmor profile that confines boxlite and "
        "denies executing bwrap does this; an explicit deny rule leaves no line in the kernel's log."
    )

    blamed_by = (TEXT,)

    def shown(self, evidence: Evidence) -> Shown | None:
        bwrap = evidence.probes.bwrap_user
        lines = [
            line
            for line in evidence.denied(operation="exec")
            if line.get("name", "").rpartition("/")[2] == FILE
        ]
        said = evidence.boxlite_says(TEXT)
        refused = bwrap.status is None and PERMISSION_DENIED in bwrap.stderr
        # A system's bubblewrap that cannot be executed stops nobody by itself: boxlite then uses its own. And a
        # profile of another program, such as a browser's, may deny bubblewrap to that one.
        if not said and not (lines and refused):
            return None
        if lines:
            why = f"AppArmor denied executing {lines[0].get('name')} under profile {lines[0].get('profile')}"
        else:
            profile = f" under {evidence.profile}" if evidence.profile else ""
            why = f"boxlite says{profile}: {TEXT}"
        return proved_if(said and refused, why, ": starting it fails with EACCES")
