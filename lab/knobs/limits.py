"""Limits on a user's processes: `[limits]`, as PAM sets them at a login."""

from pydantic import Field

from lab.knobs._base import TableKnob
from lab.probes import Facts, SuiteUser


class Limits(TableKnob):
    """Limits of the suite's user, hard and soft, in a file of /etc/security/limits.d."""

    nproc: int = Field(ge=1, description="Processes and threads of this user on the whole host.")

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        shown = who.limits.nproc
        return [] if shown == self.nproc else [f"the suite's user may have {shown} processes, not {self.nproc}"]
