"""Who may log in to a guest: whoever has the client key of its lane."""

import shlex
import time
from dataclasses import replace

from lab.guest.session import ADMIN, SUITE, Session
from lab.machine import keys
from lab.machine.lane import Endpoint


def renew(session: Session, endpoint: Endpoint) -> Endpoint:
    """Replace the client key of the guest's accounts by a new one, and set its clock.

    The session continues with the new key. Raises what `Session.run` raises.
    """
    renewed = replace(endpoint, client_key=keys.generate("lab"))
    files = " ".join(f"/home/{user}/.ssh/authorized_keys" for user in (ADMIN, SUITE))
    line = shlex.quote(renewed.client_key.public)
    # Whole seconds: the date of uutils, which Ubuntu 26.04 has, refused a fraction after @ (0.0.30).
    program = f"date --set=@{time.time():.0f}; printf '%s\\n' {line} | tee {files}"
    session.run(f"sudo -n sh -ec {shlex.quote(program)}", seconds=10)
    session.change_key(renewed)
    return renewed
