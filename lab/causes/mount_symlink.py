"""A place that bubblewrap has to mount on and that is a symlink."""

import re

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# Only bubblewrap prints this, since 0.11.2, and only for this reason.
TEXT = "Can't mount on symlink destination"
PLACE = re.compile(re.escape(TEXT) + r" (/[^\s:]{1,300})")


class MountSymlink(Cause):
    order = 310  # bubblewrap mounts boxlite's own files after /proc: see `masked_proc`.
    breaks = Needs.SANDBOX
    explanation = (
        "A file that boxlite mounts into the jailer's sandbox is a symlink there, and bubblewrap 0.12 refuses "
        "to mount on one. On Arch Linux and Fedora it is the bundle of CA certificates, which older boxlite "
        "releases mount once more inside the folder that it is in."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        said = next((text for text in evidence.said if TEXT in text), None)
        if said is None:
            return None
        place = PLACE.search(said)
        return Shown(Confidence.PROVED, f"bubblewrap prints: {place[0] if place else TEXT}")
