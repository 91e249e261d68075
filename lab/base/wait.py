"""Waiting for a condition: deadlines, limits that fit this host, a check that the guest lives; a stopwatch."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.base.errors import LabError


class DeadlineExpired(LabError):
    """The condition did not become true in time."""


class Deadline:
    """A point in time, `seconds` from now, by which `event` must have happened.

    The error adds `remark` if it has not, for example how fast this host is.
    """

    def __init__(self, seconds: float, event: str, *, remark: str = "") -> None:
        self.seconds = seconds
        self.event = event
        self._remark = f"; {remark}" if remark else ""
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineExpired if the time is up."""
        if self.remaining == 0.0:
            raise DeadlineExpired(f"waited {self.seconds:.0f} s for {self.event}{self._remark}")


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
    finished = threading.Event()

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            finished.set()

    threading.Thread(target=run, name=deadline.event, daemon=True).start()
    # In two halves: if this process was stopped meanwhile, the answer gets the second half to arrive.
    if not finished.wait(deadline.remaining / 2) and not finished.wait(deadline.seconds / 2):
        raise DeadlineExpired(f"waited {deadline.seconds:.0f} s for {deadline.event}")
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


# -- how fast this host runs guests, and the limits of time that follow from it

# What a guest's kernel takes, on its own clock, until it starts user space, where the limits for KVM hold as
# they are written. It is a tenth of what it takes where the limits for emulation hold: 3.8 to 10.0 s (five
# boots) for Debian 13's cloud kernel, emulated on two processors under a load of 6 to 9. A published log of
# guests elsewhere has 0.64 s (https://github.com/NixOS/nixpkgs/pull/178873); that KVM ran them is assumed.
KERNEL_SECONDS = 0.5
# How much slower emulation is at least. Boots took 21-36 s under it and 2-4 s under KVM.
EMULATION_FACTOR = 10.0


@dataclass(frozen=True)
class Speed:
    """How fast guests run on this host, as limits of time need it.

    `kernel_seconds` is what a guest's kernel takes until it starts user space if this host has nothing else to
    do, in real seconds; None if that was not measured. `clock` is how many seconds of a guest's clock pass in
    each real second. `more` stretches all limits further, and so does `busy`: how many programs want each of
    the host's processors.

    No limit is ever shorter than without a measurement: a host that was idle then may be busy later.
    """

    emulated: bool
    kernel_seconds: float | None = None
    more: float = 1.0
    clock: float = 1.0
    busy: float = 1.0

    @property
    def times_slower(self) -> float | None:
        """By how much this host boots a kernel slower than ordinary hardware with KVM; None: not measured."""
        return None if self.kernel_seconds is None else self.kernel_seconds / KERNEL_SECONDS

    @property
    def factor(self) -> float:
        """The factor for a limit that is meant for ordinary hardware with KVM."""
        least = EMULATION_FACTOR if self.emulated else 1.0
        return max(least, self.times_slower or 0.0) * self.more * self.busy

    @property
    def is_slow(self) -> bool:
        """Whether a limit that is not the lab's may be met for want of speed alone.

        boxlite gives a box 30 s; under emulation, ten times slower than KVM, a box takes 9 to 17 s.
        """
        return self.emulated or self.factor >= EMULATION_FACTOR / 2

    def from_kvm(self, seconds: float) -> float:
        """The limit that follows from one for ordinary hardware with KVM."""
        return seconds * self.factor

    def in_guest(self, seconds: float) -> float:
        """The same for a limit that the guest keeps, in seconds of its own clock."""
        return self.from_kvm(seconds) * self.clock

    def from_emulation(self, seconds: float) -> float:
        """The limit that follows from one that suffices for emulation on ordinary hardware."""
        return seconds * max(1.0, self.factor / EMULATION_FACTOR)

    def deadline(self, seconds: float, event: str) -> Deadline:
        """A deadline of so many seconds on ordinary hardware with KVM; its error names this host's speed."""
        return Deadline(self.from_kvm(seconds), event, remark=str(self))

    @property
    def compared(self) -> str:
        """A clause about this host, for a sentence that has said whether guests are emulated."""
        if self.times_slower is None:
            return "this host's speed is not known"
        if self.times_slower < 1.5:
            return "this host boots a kernel as fast as ordinary hardware with KVM"
        return f"this host boots a kernel {self.times_slower:.0f} times slower than ordinary hardware with KVM"

    def __str__(self) -> str:
        """A clause about this host, for errors: `waited 300 s for SSH; this host boots ...`."""
        speed = f"{self.compared} (software emulation)" if self.emulated else self.compared
        return (
            f"{speed}, and {self.busy:.0f} programs wanted each of its processors" if self.busy >= 2 else speed
        )


def measure_load() -> float:
    """How many programs wanted each of this host's processors in the last minute; at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


# Ordinary hardware with KVM.
ORDINARY = Speed(emulated=False)
