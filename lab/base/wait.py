"""Waiting for a condition, with a deadline and a check that the guest is alive; a stopwatch."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.base.errors import LabError


class DeadlineExpired(LabError):
    """The condition did not become true in time."""


class Deadline:
    """A point in time, `seconds` from now, by which `what` must have happened.

    `told` is said if it has not, for example how fast this host is.
    """

    def __init__(self, seconds: float, what: str, *, told: str = "") -> None:
        self.seconds = seconds
        self.what = what
        self._told = f"; {told}" if told else ""
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineExpired if the time is up."""
        if self.remaining == 0.0:
            raise DeadlineExpired(f"waited {self.seconds:.0f} s for {self.what}{self._told}")


def wait_for[T](
    attempt: Callable[[], T | None],
    deadline: Deadline,
    *,
    alive: Callable[[], None] = lambda: None,
    interval: float = 0.25,
) -> T:
    """Call `attempt` until it returns something other than None, and return that.

    `alive` is called before each attempt and raises when waiting has become pointless (the guest died).
    `interval` is the pause between attempts in seconds. Raises DeadlineExpired.
    """
    while True:
        alive()
        result = attempt()
        if result is not None:
            return result
        deadline.check()
        time.sleep(min(interval, deadline.remaining))


def call_within[T](call: Callable[[], T], deadline: Deadline) -> T:
    """Make a call that may never return, in a thread that is left behind if the time is up.

    Raises what the call raises, or DeadlineExpired.
    """
    result: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name=deadline.what, daemon=True).start()
    # In two halves: if this process was stopped meanwhile, the answer gets the second half to arrive.
    if not done.wait(deadline.remaining / 2) and not done.wait(deadline.seconds / 2):
        raise DeadlineExpired(f"waited {deadline.seconds:.0f} s for {deadline.what}")
    if errors:
        raise errors[0]
    return result[0]


class Stopwatch:
    """Seconds per step; a step that runs several times is summed up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.monotonic() - start
            self.seconds[name] = round(spent, 2)
