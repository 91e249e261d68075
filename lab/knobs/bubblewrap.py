"""The system's bubblewrap: `[bubblewrap]`."""

from enum import StrEnum
from typing import Self

from packaging.version import Version

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who

# From here on bubblewrap refuses to be setuid, unless it was built otherwise: its own NEWS.
NEVER_SETUID = Version("0.11.2")


class State(StrEnum):
    ABSENT = "absent"
    NOT_EXECUTABLE = "not-executable"
    SETUID = "setuid"


# In octal, as facts have it; an absent program has none.
MODES = {State.ABSENT: None, State.NOT_EXECUTABLE: "0o644", State.SETUID: "0o4755"}


class Bubblewrap(TableKnob):
    """The program gone, or with another mode. What boxlite brings along is not touched."""

    state: State

    def why_not(self, facts: Facts) -> str | None:
        if facts.bubblewrap is None:
            return "has no bubblewrap to begin with"
        version = facts.bubblewrap.version
        if self.state is State.SETUID and version is not None and Version(version) < NEVER_SETUID:
            return f"its bubblewrap {version} is made for being setuid"
        return None

    def settings(self) -> dict[str, str | None]:
        return {"mode": MODES[self.state]}

    def differences(self, facts: Facts, who: Who) -> list[str]:
        mode = facts.bubblewrap.mode if facts.bubblewrap else None
        wanted = MODES[self.state]
        return [] if mode == wanted else [f"bubblewrap's mode is {mode}, not {wanted}"]

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """The state that their program is in and this one is not; one that is as installed cannot be made."""
        mine, theirs = (facts.bubblewrap and facts.bubblewrap.mode for facts in (here, there))
        if mine is None or mine == theirs:
            return []
        return [cls(state=state) for state, mode in MODES.items() if mode == theirs]
