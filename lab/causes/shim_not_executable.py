"""A copy of boxlite's shim that lost its mode, on a file system that clones files."""

import re

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# bubblewrap's words for a program that it may not execute, here the copy beside a box.
TEXT = re.compile(r"bwrap: execvp (\S+/boxlite-shim): Permission denied")
# Where the copy is, below the user's home, in the file of the modes.
COPY = re.compile(r".*/boxes/[^/]+/bin/boxlite-shim")
OWNER_MAY_EXECUTE = 0o100


class ShimNotExecutable(Cause):
    order = 390  # bubblewrap starts the shim when its sandbox stands; only then does the shim do anything.
    breaks = Needs.SANDBOX
    explanation = (
        "For the jailer boxlite copies its shim beside a box, and on a file system that clones files (btrfs, "
        "Fedora's default, and XFS) the copy loses its execute permission, so bubblewrap cannot start it. "
        "This is a fault of boxlite's, its issue 1496; SELinux and AppArmor have nothing to do with it."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        said = next(filter(None, map(TEXT.search, evidence.said)), None)
        if said is None:
            return None
        copies = {path: mode for path, mode in evidence.modes.items() if COPY.fullmatch(path)}
        lost = next((path for path, mode in copies.items() if not mode & OWNER_MAY_EXECUTE), None)
        if lost is not None:
            why = f"{lost} has mode {copies[lost]:04o}, which lacks the owner's execute bit; {said[0]}"
            return Shown(Confidence.PROVED, why)
        # What has the permission is denied by something else, and so may a copy be whose mode nobody knows.
        if copies or evidence.profile or evidence.probes.exec_home.failed:
            return None
        return Shown(Confidence.LIKELY, f"bubblewrap says: {said[0]}")
