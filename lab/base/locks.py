"""Waiting for a lock file that another lab holds: within a limit, and with a word about it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lab.base.errors import LabError
from lab.base.wait import Deadline, DeadlineExpired, wait_for

# How often the lock is tried.
INTERVAL_SECONDS = 1.0


@contextmanager
def locked(lock: Path, seconds: float, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file for the length of a block.

    While another lab holds it, `say` is told what is waited for, and may raise to end the wait. `what` is what
    that lab does, with its verb: "build this image". Raises LabError after `seconds`.
    """
    held = FileLock(lock, timeout=0)

    def attempt() -> bool | None:
        try:
            held.acquire()
        except Timeout:
            say(f"waiting for another lab to {what}")
            return None
        return True

    try:
        wait_for(attempt, Deadline(seconds, f"another lab to {what}"), interval=INTERVAL_SECONDS)
    except DeadlineExpired as late:
        raise LabError(
            str(late), hint=f"end that lab if it hangs; lslocks shows which process holds {lock}"
        ) from late
    try:
        yield
    finally:
        held.release()
