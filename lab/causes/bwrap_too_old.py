"""A bubblewrap of the host's that lacks an option which boxlite gives it."""

import re

from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Needs

# Only bubblewrap prints this, and only of an option that its version does not have. What a report quotes of it
# comes without its name.
UNKNOWN = re.compile(r"(?:bwrap: |^)(Unknown option --[a-z][a-z0-9-]{0,40})", re.MULTILINE)


class BwrapTooOld(Cause):
    # boxlite's own check makes a user namespace with options of every version; then it starts the sandbox.
    order = 140
    breaks = Needs.SANDBOX
    explanation = (
        "The host's bubblewrap is older than the options that boxlite gives it, and boxlite prefers it to the "
        "newer one that it bundles. Debian 11 has bubblewrap 0.4.1, which lacks --clearenv of 0.5.0."
    )

    def shown(self, evidence: Evidence) -> Shown | None:
        found = next(filter(None, map(UNKNOWN.search, evidence.said)), None)
        return Shown(Confidence.PROVED, f"bubblewrap prints: {found[1]}") if found else None
