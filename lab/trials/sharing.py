"""Trials of one cell that several lanes make: its own, and others of its machine that have nothing to do."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.lane.cell import CellRunner

# Makes a trial on a lane and returns what came of it.
type Task[T] = Callable[[CellRunner], T]
# Makes trials, on which lanes it likes, and returns what came of them in the order of the trials.
type Share[T] = Callable[[Sequence[Task[T]]], list[T]]


def on_one_lane[T](runner: CellRunner) -> Share[T]:
    """Make trials one after another on this lane."""
    return lambda tasks: [task(runner) for task in tasks]


@dataclass
class Offer[T]:
    """Trials of a cell, each of which any lane of its machine may make; each takes about so many `seconds`.

    The cell's own lane calls `finish`, others call `help_once`. A trial whose helper met a fault is made again
    by the cell's own lane: it may be the trial that kills machines.
    """

    tasks: Sequence[Task[T]]
    seconds: float = 0.0
    _waiting: deque[int] = field(default_factory=deque)
    _for_own: deque[int] = field(default_factory=deque)
    _results: dict[int, T] = field(default_factory=dict)
    _helped: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._waiting.extend(range(len(self.tasks)))

    @property
    def is_open(self) -> bool:
        """Whether a lane that helped would find something to do."""
        return bool(self._waiting)

    @property
    def seconds_left(self) -> float:
        """About how long the trials take that no lane has begun."""
        return len(self._waiting) * self.seconds

    def finish(self, runner: CellRunner) -> list[T]:
        """Make trials on the cell's own lane until all are made; what came of each, in their order.

        Raises what a trial raises on this lane; then nobody begins another one.
        """
        try:
            while (number := self._next_of_own()) is not None:
                self._results[number] = self.tasks[number](runner)
        finally:
            with self._changed:
                self._waiting.clear()
        return [self._results[number] for number in range(len(self.tasks))]

    def _next_of_own(self) -> int | None:
        """The next trial for the cell's own lane, once there is one; None when all are made."""
        with self._changed:
            self._changed.wait_for(lambda: self._for_own or self._waiting or not self._helped)
            queue = self._for_own or self._waiting
            return queue.popleft() if queue else None

    def help_once(self, runner: CellRunner, on_fault: Callable[[Exception], None]) -> None:
        """Make one of the trials on another lane, if one is left.

        Raises what the trial raises, and LaneDied if the lane is dead afterwards: what came of the trial says
        nothing then. A fault is told before the cell's own lane goes on.
        """
        with self._changed:
            if not self._waiting:
                return
            number = self._waiting.popleft()
            self._helped += 1
        try:
            result = self.tasks[number](runner)
            runner.running.lane.check_alive()
        except BaseException as error:
            try:
                if isinstance(error, Exception):
                    on_fault(error)
            finally:
                # Whatever happened, the cell's own lane waits for this.
                self._end_help(lambda: self._for_own.append(number))
            raise
        self._end_help(lambda: self._results.update({number: result}))

    def _end_help(self, note: Callable[[], None]) -> None:
        with self._changed:
            note()
            self._helped -= 1
            self._changed.notify_all()
