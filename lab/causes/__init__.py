"""The causes, each a module of its own, and which of them a cell's evidence shows.

They stand in the order in which boxlite meets them, so that the first that is found is the first that blocks.
boxlite opens /dev/kvm before anything else; then it looks for bubblewrap, and has it make a user namespace
before it starts the box in one (`can_create_user_namespace` in its jailer/bwrap.rs). For what the kernel asks
then, see `userns_sysctl`.
"""

import sys

from lab.base.discovery import classes
from lab.causes._base import Cause, Shown
from lab.evidence import Evidence
from lab.record import Confidence, Finding, Needs

__all__ = ["Cause", "Shown", "diagnose", "known"]


def known() -> dict[str, Cause]:
    """Every cause by its name, the one that boxlite meets first at the front."""
    found = classes(sys.modules[__name__], Cause)  # type: ignore[type-abstract]
    made = {name.replace("_", "-"): kind() for name, kind in found.items()}
    return dict(sorted(made.items(), key=lambda item: item[1].order))


def diagnose(evidence: Evidence) -> list[Finding]:
    """The causes that the evidence shows, the first that blocks first; empty where it proves none.

    A cause that would fail the control test is none where that passed. Where it failed, something else than
    the sandbox is broken: a cause that blocks the sandbox alone is then named only behind one that is proved
    and explains that.
    """
    shown = {name: (cause, what) for name, cause in known().items() if (what := cause.shown(evidence))}
    fails_control = {name for name, (cause, _) in shown.items() if Needs.BOX.includes(cause.breaks)}
    explained = any(shown[name][1].confidence is Confidence.PROVED for name in fails_control)
    if not evidence.control_failed:
        named = shown.keys() - fails_control
    else:
        named = set(shown) if explained else fails_control
    return [
        Finding(name=name, confidence=what.confidence, why=what.why)
        for name, (_, what) in shown.items()
        if name in named
    ]
