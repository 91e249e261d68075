"""Who runs the suite: `[user]`."""

from typing import Any, ClassVar, Literal

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who


class User(TableKnob):
    """Root instead of the ordinary user of all other cells."""

    name: Literal["root"]
    runs_as_root: ClassVar[bool] = True

    def settings(self) -> dict[str, Any] | None:
        return None

    def differences(self, facts: Facts, who: Who) -> list[str]:
        return [] if who.uid == 0 else [f"the suite would run as user {who.uid}, not as root"]
