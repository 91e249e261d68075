"""The limit on the number of a user's processes."""

import re

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# A process or a thread that could not be started, for EAGAIN: as bubblewrap, Rust's standard library and the Go
# runtime in boxlite's shim print it. Other calls have the same error for other reasons.
REFUSED = re.compile(
    r"Creating new namespace failed: Resource temporarily unavailable"
    r"|[Ff]ailed to run [^:\n]{1,200}: Resource temporarily unavailable"
    r"|\bspawn\b[^:\n]{0,60}: (?:Resource temporarily unavailable|Os \{ code: 11\b)"
    r"|failed to create new OS thread"
    r"|pthread_create failed: Resource temporarily unavailable"
)


class NprocLimit(Cause):
    # boxlite starts threads before it runs its own programs: see `home_noexec`.
    order = 28
    # Of a user who is near the limit: with no process left at all, not even boxlite's runtime starts.
    breaks = Needs.BOX
    # The limit refuses whichever process is one too many: how many threads there are at a moment is timing.
    met_by_chance = True
    explanation = (
        "The user has as many processes and threads as the limit RLIMIT_NPROC allows, so no more can be "
        "started for a box. The limit counts everything of this user on the whole host, and usually comes from "
        "/etc/security/limits.conf."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        words = next((found[0] for said in evidence.said if (found := REFUSED.search(said))), None)
        if words is None:
            return None
        # A control group and the whole host have limits with the same error.
        return Shown(Confidence.LIKELY, f"no process could be started: {words}")
