"""Control groups: `[cgroup]`, what systemd hands over to a user."""

from typing import Literal

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who


class Cgroup(TableKnob):
    """A user's own service manager without a control group of its own to make others in."""

    delegation: Literal[False]

    def why_not(self, facts: Facts) -> str | None:
        if facts.cgroup.version != "v2":
            return "has no cgroup v2, the only one to be given away"
        return None if facts.login_sessions else "gives its users no control groups to begin with"

    def differences(self, facts: Facts, who: Who) -> list[str]:
        given = who.context.delegated
        return [f"the suite's user was given the controllers {' '.join(given)}"] if given else []
