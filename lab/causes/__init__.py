"""The causes, one per module, and the diagnosis of a cell's evidence.

The causes are sorted in the order in which boxlite meets them, so the first one found is the first that blocks.
boxlite opens /dev/kvm first. Then it looks for bubblewrap and checks that it can make a user namespace
(`can_create_user_namespace` in boxlite's jailer/bwrap.rs). `userns_sysctl` describes the kernel's own order.
"""

import sys
from functools import cache

from lab.base.discovery import classes
from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Finding, Needs

__all__ = ["Cause", "Shown", "diagnose", "known"]


def known() -> dict[str, Cause]:
    """Return all causes by name, in the order in which boxlite meets them."""
    return _known(tuple(__path__))


@cache
def _known(_folders: tuple[str, ...]) -> dict[str, Cause]:
    """The causes in these folders, read once: what a cell is expected to do asks for them each time."""
    found = classes(sys.modules[__name__], Cause)  # type: ignore[type-abstract]
    made = {name.replace("_", "-"): kind() for name, kind in found.items()}
    return dict(sorted(made.items(), key=lambda item: item[1].order))


def diagnose(evidence: Evidence) -> list[Finding]:
    """Return the causes that the evidence shows, the first one that blocks at the front.

    If the control passed, causes that would have failed it are ruled out. If it failed, something other than
    the sandbox is broken, so causes that block only the sandbox are listed only if a proved cause explains the
    failed control. If it did not run, only proved causes are listed.
    """
    shown = {name: (cause, what) for name, cause in known().items() if (what := cause.shown(evidence))}
    proved = {name for name, (_, what) in shown.items() if what.confidence is Confidence.PROVED}
    fails_control = {name for name, (cause, _) in shown.items() if Needs.BOX.includes(cause.breaks)}
    if evidence.control_failed is None:
        named = proved
    elif evidence.control_failed:
        named = set(shown) if fails_control & proved else fails_control
    else:
        named = shown.keys() - fails_control
    return [
        Finding(name=name, confidence=what.confidence, why=what.why)
        for name, (_, what) in shown.items()
        if name in named
    ]
