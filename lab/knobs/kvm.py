"""KVM: `[kvm]`, who may use /dev/kvm, and whether it exists."""

from enum import StrEnum

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who

# The permission bits that let everyone read and write.
EVERYONE = 0o006


class State(StrEnum):
    DENIED = "denied"
    ABSENT = "absent"


class Kvm(TableKnob):
    """The group of /dev/kvm without members, or no /dev/kvm at all."""

    state: State

    def why_not(self, facts: Facts) -> str | None:
        if facts.kvm is None:
            return "has no /dev/kvm to begin with"
        if self.state is State.DENIED and int(facts.kvm.mode, 8) & EVERYONE == EVERYONE:
            return "everyone may use its /dev/kvm, whatever their groups"
        return None

    def differences(self, facts: Facts, who: Who) -> list[str]:
        kvm = facts.kvm
        if self.state is State.ABSENT:
            return ["/dev/kvm is there"] if kvm else []
        if kvm is None:
            return ["there is no /dev/kvm"]
        return ["the suite's user is in the group of /dev/kvm"] if kvm.gid in who.groups else []
