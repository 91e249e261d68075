"""The causes: for each, the rule over the evidence that shows it.

The rules stand in the order in which the kernel meets them when it makes a user namespace, so that the first
that fires is the first that blocks: Debian's sysctl, the limit, the security modules, and then the
capabilities inside (`ksys_unshare` and `create_user_ns` in the kernel's kernel/fork.c and user_namespace.c).
bubblewrap's text is the same for several causes, so no rule rests on it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lab.diagnosis.evidence import Evidence
from lab.results import Cause, Confidence

# capabilities(7): what a process needs in its namespace to mount, and to drop capabilities.
SYS_ADMIN, SETPCAP = "21", "8"
# What boxlite and the probes start; another program's denial explains nothing here.
NAMESPACE_MAKERS = ("bwrap", "unshare")
NOT_PERMITTED = "Operation not permitted"
NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class Finding:
    """A cause that the evidence shows, how well, and the piece of evidence in a sentence."""

    cause: Cause
    confidence: Confidence
    why: str


Rule = Callable[[Evidence], Finding | None]


def diagnose(evidence: Evidence, *, control_passed: bool) -> list[Finding]:
    """The causes that the evidence shows, the first that blocks first; empty where it proves none.

    Where the control failed too, something else than the sandbox is broken, and no rule here may claim it.
    """
    if not control_passed:
        return []
    return [finding for rule in RULES if (finding := rule(evidence))]


def _userns_sysctl(evidence: Evidence) -> Finding | None:
    name = "kernel.unprivileged_userns_clone"
    if evidence.sysctls.get(name) != "0":
        return None
    refused = evidence.probe("unshare_user").failed_with(NOT_PERMITTED)
    return Finding(
        Cause.USERNS_SYSCTL,
        Confidence.PROVED if refused else Confidence.LIKELY,
        f"{name} is 0" + (" and `unshare -U` is refused: EPERM" if refused else ""),
    )


def _userns_limit(evidence: Evidence) -> Finding | None:
    name = "user.max_user_namespaces"
    refused = evidence.probe("unshare_user").failed_with(NO_SPACE)
    if evidence.sysctls.get(name) != "0" and not refused:
        return None
    both = evidence.sysctls.get(name) == "0" and refused
    return Finding(
        Cause.USERNS_LIMIT,
        Confidence.PROVED if both else Confidence.LIKELY,
        f"{name} is {evidence.sysctls.get(name)}" + (" and `unshare -U` is refused: ENOSPC" if refused else ""),
    )


def _apparmor_deny(evidence: Evidence) -> Finding | None:
    lines = [
        line for line in evidence.denied(operation="userns_create") if line.get("comm") in NAMESPACE_MAKERS
    ]
    if not lines:
        return None
    blocked = not evidence.probe("bwrap_user").worked
    return Finding(
        Cause.APPARMOR_USERNS_DENY,
        Confidence.PROVED if blocked else Confidence.LIKELY,
        f"AppArmor denied userns_create to {lines[0].get('comm')} by profile {lines[0].get('profile')}",
    )


def _apparmor_nocaps(evidence: Evidence) -> Finding | None:
    # The kernel does not repeat a denial: bwrap's own may be missing behind that of boxlite's thread, which
    # is confined by the same profile.
    lines = [
        line
        for line in evidence.denied(operation="capable")
        if line.get("capability") in (SYS_ADMIN, SETPCAP)
        and (line.get("comm") in NAMESPACE_MAKERS or line.get("profile", "") == evidence.profile)
    ]
    if not lines:
        return None
    stripped = evidence.probe("unshare_user").worked and not evidence.probe("unshare_user_root").worked
    return Finding(
        Cause.APPARMOR_USERNS_NOCAPS,
        Confidence.PROVED if stripped else Confidence.LIKELY,
        f"AppArmor denied {lines[0].get('capname')} to {lines[0].get('comm')} by profile "
        f"{lines[0].get('profile')}" + (": `unshare -U` works and `unshare -Ur` does not" if stripped else ""),
    )


RULES: tuple[Rule, ...] = (_userns_sysctl, _userns_limit, _apparmor_deny, _apparmor_nocaps)
