"""Who runs the suite, and what confines it: `[user]`, `[limits]`, `[cgroup]`, `[kvm]` and `[container]`."""

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from lab.catalog.knobs._base import TableKnob
from lab.probes import Facts, SuiteUser
from lab.probes.facts import read_label


class User(TableKnob):
    """Root instead of the ordinary user of all other cells."""

    name: Literal["root"]
    runs_as_root: ClassVar[bool] = True

    def settings(self) -> dict[str, Any] | None:
        return None

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        return [] if who.uid == 0 else [f"the suite would run as user {who.uid}, not as root"]


class Limits(TableKnob):
    """Limits of the suite's user, hard and soft, in a file of /etc/security/limits.d."""

    nproc: int = Field(ge=1, description="Processes and threads of this user on the whole host.")

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        shown = who.limits.nproc
        return [] if shown == self.nproc else [f"the suite's user may have {shown} processes, not {self.nproc}"]


class Cgroup(TableKnob):
    """No control group is delegated to the user's service manager, so that it cannot create any."""

    delegation: Literal[False]

    def why_not(self, facts: Facts) -> str | None:
        if facts.cgroup.version != "v2":
            return "has no cgroup v2, the only one to be given away"
        return None if facts.login_sessions else "gives its users no control groups to begin with"

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        given = who.context.delegated
        return [f"the suite's user was given the controllers {' '.join(given)}"] if given else []


# The permission bits that let everyone read and write.
EVERYONE = 0o006


class KvmState(StrEnum):
    DENIED = "denied"
    ABSENT = "absent"


class Kvm(TableKnob):
    """The group of /dev/kvm without members, or no /dev/kvm at all."""

    state: KvmState

    def why_not(self, facts: Facts) -> str | None:
        if facts.kvm is None:
            return "has no /dev/kvm to begin with"
        if self.state is KvmState.DENIED and int(facts.kvm.mode, 8) & EVERYONE == EVERYONE:
            return "everyone may use its /dev/kvm, whatever their groups"
        return None

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        kvm = facts.kvm
        if self.state is KvmState.ABSENT:
            return ["/dev/kvm is there"] if kvm else []
        if kvm is None:
            return ["there is no /dev/kvm"]
        return ["the suite's user is in the group of /dev/kvm"] if kvm.gid in who.groups else []


# The value of Seccomp in /proc/PID/status for a process with a filter.
FILTERED = 2


class ContainerKind(StrEnum):
    """What confines the container, from most to nothing."""

    # A filter that refuses namespaces, as Docker's default does and podman's does not.
    NO_NAMESPACES = "no-namespaces"
    DEFAULT = "default"
    APPARMOR_OFF = "apparmor-off"
    # No filter, no profile, and no part of /proc is masked.
    UNCONFINED = "unconfined"
    PRIVILEGED = "privileged"


UNDER_A_PROFILE = (ContainerKind.NO_NAMESPACES, ContainerKind.DEFAULT)
UNDER_A_FILTER = (*UNDER_A_PROFILE, ContainerKind.APPARMOR_OFF)


class Container(TableKnob):
    """Root starts the container, as Docker does. In it the same user runs the suite as in other cells."""

    kind: ContainerKind

    def why_not(self, facts: Facts) -> str | None:
        if not facts.podman:
            return "has no podman"
        needs_apparmor = self.kind is ContainerKind.APPARMOR_OFF and facts.apparmor is None
        return "no AppArmor" if needs_apparmor else None

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
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
