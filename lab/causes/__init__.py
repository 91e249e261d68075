"""The causes why boxlite is blocked, and the diagnosis of a cell's evidence.

They are known in the order in which boxlite meets them, so the first one found is the first that blocks: a rule
joins the others when its module is imported, so the imports here stand in that order.
"""

from lab.causes import before_sandbox, rule, sandbox, shim
from lab.causes.evidence import Evidence
from lab.causes.rule import Cause, CauseEvidence
from lab.record import Confidence, FoundCause, Needs


def list_causes() -> dict[str, Cause]:
    """Return all causes by name, in the order in which boxlite meets them."""
    return {cause.name: cause for cause in rule.CAUSES}


def diagnose_evidence(evidence: Evidence) -> list[FoundCause]:
    """Return the causes that the evidence shows, the first one that blocks at the front.

    If the control passed, causes that would have failed it are ruled out. If it failed, something other than
    the sandbox is broken, so causes that block only the sandbox are listed only if a cause explains the failed
    control: all of them if that one is proved, or else those that are proved themselves. If it did not run,
    only proved causes are listed. A cause that the build's version cannot have is not looked for.
    """
    possible = [cause for cause in rule.CAUSES if cause.can_affect(evidence.boxlite)]
    by_name = {cause.name: (cause, result) for cause in possible if (result := cause.rule(evidence))}
    proved = {name for name, (_, result) in by_name.items() if result.confidence is Confidence.PROVED}
    fails_control = {name for name, (cause, _) in by_name.items() if Needs.BOX.includes(cause.breaks)}
    if evidence.control_failed is None:
        names = proved
    elif not evidence.control_failed:
        names = by_name.keys() - fails_control
    elif fails_control & proved:
        names = set(by_name)
    else:
        names = fails_control | proved if fails_control else set()
    return [
        FoundCause(name=name, confidence=result.confidence, reason=result.reason)
        for name, (_, result) in by_name.items()
        if name in names
    ]
