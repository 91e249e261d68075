"""SELinux: `[selinux]`, its mode, and a module that is added to its policy."""

from typing import Literal

from pydantic import Field

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who

# The name of the added module in the guest.
MODULE = "lab"


class Selinux(TableKnob):
    """The mode, and a module added to the policy. The guest then need not enforce its own policy."""

    mode: Literal["enforcing", "permissive"] = "enforcing"
    module: str | None = Field(
        default=None, description="Text of a module in SELinux's Common Intermediate Language."
    )

    def why_not(self, facts: Facts) -> str | None:
        return None if facts.selinux else "no SELinux"

    def differences(self, facts: Facts, who: Who) -> list[str]:
        if facts.selinux is None:
            return ["SELinux is not in use"]
        mode, modules = facts.selinux.mode, facts.selinux.modules
        wrong = [] if mode == self.mode else [f"SELinux is {mode}, not {self.mode}"]
        if self.module and MODULE not in modules:
            wrong.append(f"the module {MODULE} is not in SELinux's policy")
        return wrong
