"""Who may log in to a guest: whoever has the client key of its lane."""

import time
from dataclasses import replace

from lab.guest.session import ADMIN, SUITE, Session
from lab.machine import keys
from lab.machine.lane import Endpoint


def renew(session: Session, endpoint: Endpoint) -> Endpoint:
    """Replace the client key of the guest's accounts by a new one, and set its clock.

    The session continues with the new key. Raises what `Session.programs` raises.
    """
    renewed = replace(endpoint, client_key=keys.generate("lab"))
    files = [f"/home/{user}/.ssh/authorized_keys" for user in (ADMIN, SUITE)]
    argument = {"clock": time.time(), "key": renewed.client_key.public, "files": files}
    session.program("renew_key", argument, seconds=10)
    session.change_key(renewed)
    return renewed
