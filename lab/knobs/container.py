"""Containers: `[container]`, the suite runs in one that podman makes from the guest's own files."""

from enum import StrEnum

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who
from lab.probes.label import read_label

# The value of Seccomp in /proc/PID/status for a process with a filter.
FILTERED = 2


class Kind(StrEnum):
    """What confines the container, from most to nothing."""

    # A filter that refuses namespaces, as Docker's default does and podman's does not.
    NO_NAMESPACES = "no-namespaces"
    DEFAULT = "default"
    APPARMOR_OFF = "apparmor-off"
    # No filter, no profile, and no part of /proc is masked.
    UNCONFINED = "unconfined"
    PRIVILEGED = "privileged"


UNDER_A_PROFILE = (Kind.NO_NAMESPACES, Kind.DEFAULT)
UNDER_A_FILTER = (*UNDER_A_PROFILE, Kind.APPARMOR_OFF)


class Container(TableKnob):
    """Root starts the container, as Docker does. In it the same user runs the suite as in other cells."""

    kind: Kind

    def why_not(self, facts: Facts) -> str | None:
        if not facts.podman:
            return "has no podman"
        needs_apparmor = self.kind is Kind.APPARMOR_OFF and facts.apparmor is None
        return "no AppArmor" if needs_apparmor else None

    def differences(self, facts: Facts, who: Who) -> list[str]:
        wrong = [] if who.container else ["the suite would run in no container"]
        filtered = who.seccomp == FILTERED
        if filtered != (self.kind in UNDER_A_FILTER):
            wrong.append(f"the suite would run {'under a' if filtered else 'without a'} seccomp filter")
        # Where a profile exempts the container's runtime, that of the container is stacked on it.
        confined = read_label(who.context.apparmor).confines
        if confined != (self.kind in UNDER_A_PROFILE and facts.apparmor is not None):
            wrong.append(f"the suite would run confined by {who.context.apparmor!r}")
        return wrong

    def under(self) -> list[str]:
        return ["lab-container"]
