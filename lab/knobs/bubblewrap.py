"""The system's bubblewrap: `[bubblewrap]`."""

from enum import StrEnum
from typing import Self

from packaging.version import Version

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who
from lab.probes.facts import numbers

# Since this version bubblewrap refuses to run setuid, unless it is built with support for it (see its NEWS).
NEVER_SETUID = Version("0.11.2")


class State(StrEnum):
    ABSENT = "absent"
    NOT_EXECUTABLE = "not-executable"
    SETUID = "setuid"


# As in the facts: octal; None for an absent program.
MODES = {State.ABSENT: None, State.NOT_EXECUTABLE: "0o644", State.SETUID: "0o4755"}


class Bubblewrap(TableKnob):
    """The program removed, or with another mode. The copy that boxlite ships is not changed."""

    state: State

    def why_not(self, facts: Facts) -> str | None:
        if facts.bubblewrap is None:
            return "has no bubblewrap to begin with"
        version = numbers(facts.bubblewrap.version)
        if self.state is State.SETUID and version is not None and version < NEVER_SETUID:
            return f"its bubblewrap {facts.bubblewrap.version} is made for being setuid"
        return None

    def settings(self) -> dict[str, str | None]:
        return {"mode": MODES[self.state]}

    def differences(self, facts: Facts, who: Who) -> list[str]:
        mode = facts.bubblewrap.mode if facts.bubblewrap else None
        wanted = MODES[self.state]
        return [] if mode == wanted else [f"bubblewrap's mode is {mode}, not {wanted}"]

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """The state of the program there, if it is another one than here and not the state as installed."""
        mine, theirs = (facts.bubblewrap and facts.bubblewrap.mode for facts in (here, there))
        if mine is None or mine == theirs:
            return []
        return [cls(state=state) for state, mode in MODES.items() if mode == theirs]
