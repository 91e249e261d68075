"""A host worker that was started over SSH ends with its connection.

Without a terminal, an SSH server sends no signal to a command whose connection has gone, however it went; it
only closes the command's standard input. And while a link is cut, not even that. So the other end sends
something now and then, and silence counts as an end.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable

# What a host worker prints, as the beginning of a line, once the coordinator has it.
JOINED = "joined "
# How often the other end sends something, and how long a silence may be.
BEAT_SECONDS = 20.0
SILENT_SECONDS = 300.0
# How long an orderly end may take: machines are taken down, and a part's results are sent.
GRACE_SECONDS = 45.0


def end_with_stdin(
    handle: int = 0,
    *,
    silence: float = SILENT_SECONDS,
    grace: float = GRACE_SECONDS,
    kill: Callable[[int, int], None] = os.kill,
) -> threading.Thread:
    """End this process, as by SIGTERM, when its standard input closes, or is silent for `silence` seconds.

    After `grace` seconds there is a second SIGTERM, at which the lab stops at once. What arrives on standard
    input is not looked at.
    """

    def wait() -> None:
        while _hears(handle, silence):
            pass
        kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, name="tether", daemon=True)
    thread.start()
    return thread


def _hears(handle: int, seconds: float) -> bool:
    """Whether something arrives within so many seconds; nothing does any more where this cannot be read."""
    try:
        return bool(select.select([handle], [], [], seconds)[0] and os.read(handle, 4096))
    except (OSError, ValueError):
        return False
