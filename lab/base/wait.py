"""Waiting, always against a deadline on the monotonic clock and never longer than what is waited for lives."""

import time
from collections.abc import Callable

from lab.base.errors import LabError


class DeadlineExpired(LabError):
    """What was waited for did not happen in time."""


class Deadline:
    """A point in time by which `what` must have happened; `seconds` from now."""

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = seconds
        self.what = what
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    def check(self, last: str = "") -> None:
        """Raise DeadlineExpired when the time is up; `last` says what was seen last."""
        if self.remaining == 0.0:
            seen = f"; last seen: {last}" if last else ""
            raise DeadlineExpired(f"waited {self.seconds:.0f} s for {self.what}{seen}")


def wait_for[T](
    attempt: Callable[[], T | None],
    deadline: Deadline,
    *,
    alive: Callable[[], None] = lambda: None,
    interval: float = 0.25,
) -> T:
    """Call `attempt` until it gives something other than None.

    `alive` is asked before each attempt and raises when waiting has become pointless (the guest died);
    `interval` is the pause between attempts in seconds. Raises DeadlineExpired.
    """
    while True:
        alive()
        result = attempt()
        if result is not None:
            return result
        deadline.check()
        time.sleep(min(interval, deadline.remaining))
