"""Control groups: `[cgroup]`, what systemd delegates to a user."""

from typing import Literal

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who


class Cgroup(TableKnob):
    """No control group is delegated to the user's service manager, so that it cannot create any."""

    delegation: Literal[False]

    def why_not(self, facts: Facts) -> str | None:
        if facts.cgroup.version != "v2":
            return "has no cgroup v2, the only one to be given away"
        return None if facts.login_sessions else "gives its users no control groups to begin with"

    def differences(self, facts: Facts, who: Who) -> list[str]:
        given = who.context.delegated
        return [f"the suite's user was given the controllers {' '.join(given)}"] if given else []
