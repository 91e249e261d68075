"""A host worker that was started over SSH ends with its connection.

Without a terminal, an SSH server sends no signal to a command whose connection has gone, however it went; it
only closes the command's standard input.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

# What a host worker prints, as the beginning of a line, once the coordinator has it.
JOINED = "joined "
# How long an orderly end may take: machines are taken down, and a part's results are sent.
GRACE_SECONDS = 45.0


def end_with_stdin(
    handle: int = 0, *, grace: float = GRACE_SECONDS, kill: Callable[[int, int], None] = os.kill
) -> threading.Thread:
    """End this process, as by SIGTERM, when its standard input closes; by a second one after `grace` seconds.

    The lab stops at once at the second one. What arrives on standard input is not looked at.
    """

    def wait() -> None:
        while _read(handle):
            pass
        kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, name="tether", daemon=True)
    thread.start()
    return thread


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 4096)
    except OSError:
        return b""
