"""What the host can run at once: memory for lanes, and processors for emulated guests."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from lab.base.activity import Activity, Progress, ShowProgress
from lab.machine.acceleration import Acceleration

# QEMU's own memory, in addition to the guest's: translated code, and the checkpoint while it is saved.
QEMU_OVERHEAD_MIB = 1024
# Left to the host: without free memory it kills a guest or any other process.
RESERVE_MIB = 1024


@dataclass(frozen=True)
class HostLimits:
    """How much of the host a run may use: lanes at once, memory for all lanes together, and processors.

    `spare` are further lanes for emulated guests. With one lane more than processors, these are handed out
    suite by suite, so that more guests than processors come to their end at about the same time.
    """

    jobs: int
    memory_mib: int | None = None
    processors: int = 1
    spare: int = 0

    @classmethod
    def of_this_host(cls, jobs: int | None = None, memory_mib: int | None = None) -> "HostLimits":
        """By default, one lane for each processor, a spare one, and all memory that the host can spare."""
        processors = os.cpu_count() or 1
        return cls(jobs or processors, memory_mib, processors, spare=0 if jobs else 1)


def measure_available_mib() -> int:
    """Memory that the host can give without swapping, in MiB."""
    return int(psutil.virtual_memory().available // 2**20)


class Memory:
    """Memory for lanes. A lane is admitted if enough is left, and returns its memory when it ends."""

    def __init__(
        self, limit_mib: int | None = None, *, available: Callable[[], int] = measure_available_mib
    ) -> None:
        """`limit_mib` limits all lanes together; by default they may use all but the host's reserve."""
        self._available = available
        self._limit = max(0, available() - RESERVE_MIB)
        if limit_mib is not None:
            self._limit = min(self._limit, limit_mib)
        self._taken = 0
        self._lock = threading.Lock()

    @staticmethod
    def need_mib(guest_mib: int) -> int:
        """The memory that a lane needs for a guest with `guest_mib` of memory."""
        return guest_mib + QEMU_OVERHEAD_MIB

    def admit(self, guest_mib: int) -> str:
        """Take memory for one lane; return an empty string, or the reason if there is too little."""
        need = self.need_mib(guest_mib)
        with self._lock:
            if self._taken + need > self._limit:
                spare = self._limit - self._taken
                limit = f"{spare} of the {self._limit} MiB for lanes are left"
                return f"a lane needs {need} MiB of memory, and {limit}"
            # Another program may have taken memory that was free when the limit was set.
            if (free := self._available()) < need + RESERVE_MIB:
                return (
                    f"a lane needs {need} MiB of memory in addition to {RESERVE_MIB} MiB for the host, "
                    f"and only {free} MiB are available"
                )
            self._taken += need
            return ""

    def release(self, guest_mib: int) -> None:
        with self._lock:
            self._taken -= self.need_mib(guest_mib)


class Processors:
    """A queue for work that keeps processors busy; first come, first served.

    Under emulation a booting guest keeps all of its processors busy, a suite one. More work at once than the
    host has processors makes nothing faster, and delays boxes: boxlite waits at most 30 s for one to start.
    """

    def __init__(self, count: int) -> None:
        self.free = count
        self.count = count
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, count: int, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold `count` processors, at most all there are; `on_wait` is called if they are not free at once."""
        count = min(count, self.count)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                if self._queue[0] is not ticket or self.free < count:
                    on_wait()
                self._changed.wait_for(lambda: self._queue[0] is ticket and self.free >= count)
                self.free -= count
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.free += count
                self._changed.notify_all()


@contextmanager
def occupy_processor(
    processors: Processors,
    work: Progress,
    *,
    acceleration: Acceleration,
    show: ShowProgress,
    alone: bool = False,
) -> Iterator[None]:
    """Hold a processor for work that keeps an emulated guest's busy; under KVM nobody waits.

    `work` is shown when it begins. `alone`: hold all of them, so that no other lane is at work.
    """
    if acceleration.kvm:
        show(work)
        yield
        return
    wait = "waiting until no other lane is at work" if alone else "waiting for a processor"
    with processors.hold(processors.count if alone else 1, lambda: show(Progress(wait, Activity.WAITING))):
        show(work)
        yield
