"""What is left of a run: which machine needs a lane next, and which cell a lane takes next."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.builds import Build
from lab.plan import Cell, Machine
from lab.record import CellResult
from lab.run.estimates import Estimates


@dataclass(eq=False)
class Ticket:
    """A cell on its way: its repeats that ended, and the lab's own faults met so far.

    `decided`: its result from before, where its suite is not to be run again and more is to be tried on it.

    A fault sends it to a fresh lane: one with a number above `after`.
    """

    cell: Cell
    decided: CellResult | None = None
    done: list[CellResult] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    after: int = 0


@dataclass
class _Entry:
    machine: Machine
    waiting: list[Ticket]
    # Lanes by number, each with whether it is up; and those that have taken something.
    lanes: dict[int, bool] = field(default_factory=dict)
    served: set[int] = field(default_factory=set)
    # A machine that once failed to come up beside another lane of its own gets no second one.
    single: bool = False


class Backlog:
    """The tickets of a run by machine. Lanes call it from their own threads."""

    def __init__(
        self,
        cells: Iterable[Cell],
        estimates: Estimates,
        *,
        decided: Mapping[Path, CellResult] | None = None,
        cold: bool = False,
        repeat: int = 1,
    ) -> None:
        """`decided`: results from before, by the folders of the cells on which more is to be tried."""
        self._estimates = estimates
        self._repeat = repeat
        self._cold = cold
        self._lock = threading.RLock()
        self._machines: dict[str, _Entry] = {}
        for cell in cells:
            entry = self._machines.setdefault(cell.machine.name, _Entry(cell.machine, []))
            entry.waiting.append(Ticket(cell, (decided or {}).get(cell.folder)))

    def next_machines(self) -> list[Machine]:
        """The machines of which a new lane would help, the one with the most left to do first.

        The longest goes first, so that no long lane is left over when the others are done.
        """
        with self._lock:
            needs = {name: need for name, entry in self._machines.items() if (need := self._need(entry)) > 0}
            return [self._machines[name].machine for name in sorted(needs, key=lambda n: -needs[n])]

    def _need(self, entry: _Entry) -> float:
        """Seconds that a further lane of the guest would have to do; 0 where it would not help."""
        left = sum(self._seconds(ticket) for ticket in entry.waiting)
        bring_up = self._estimates.bring_up(entry.machine.guest.name)
        if self._cold:
            # A lane serves one cell, and those that took none yet have each one to take.
            on_their_way = entry.lanes.keys() - entry.served
            return left + bring_up if len(entry.waiting) > len(on_their_way) else 0.0
        stranded = self._stranded(entry)
        if stranded:
            return bring_up + sum(self._seconds(ticket) for ticket in stranded)
        if entry.single or not all(entry.lanes.values()) or not entry.waiting:
            return 0.0
        # One more must pay for its own start.
        lanes = len(entry.lanes)
        return left / lanes if left / lanes > bring_up + left / (lanes + 1) else 0.0

    def opened(self, machine: str, number: int) -> None:
        with self._lock:
            self._machines[machine].lanes[number] = False

    def is_up(self, machine: str, number: int) -> None:
        with self._lock:
            self._machines[machine].lanes[number] = True

    def closed(self, machine: str, number: int) -> None:
        with self._lock:
            self._machines[machine].lanes.pop(number, None)

    def take(self, machine: str, number: int) -> Ticket | None:
        """The next ticket for this lane, or None where it has nothing more to do."""
        with self._lock:
            entry = self._machines[machine]
            found = next((ticket for ticket in entry.waiting if ticket.after < number), None)
            if found:
                entry.waiting.remove(found)
                entry.served.add(number)
            return found

    def put_back(self, ticket: Ticket, *, after: int) -> None:
        """Let a later lane than number `after` try it again."""
        with self._lock:
            ticket.after = after
            self._machines[ticket.cell.machine.name].waiting.append(ticket)

    def is_alone(self, machine: str) -> bool:
        """Whether the guest has one lane only."""
        with self._lock:
            return len(self._machines[machine].lanes) == 1

    def drop(self, machine: str, build: Build | None = None) -> list[Ticket]:
        """Take out all that waits of a guest, or of one build on it: nothing can come of it."""
        with self._lock:
            entry = self._machines[machine]
            out = [t for t in entry.waiting if build is None or t.cell.build == build]
            entry.waiting = [t for t in entry.waiting if t not in out]
            return out

    def lane_failed(self, machine: str, number: int) -> list[Ticket]:
        """A lane did not come up: the tickets that no other lane of the guest can take, taken out."""
        with self._lock:
            entry = self._machines[machine]
            self.closed(machine, number)
            entry.single |= bool(entry.lanes)
            # A cold lane would have served one cell, whatever other lanes there are.
            could = [ticket for ticket in entry.waiting if ticket.after < number]
            out = could[:1] if self._cold else self._stranded(entry)
            entry.waiting = [ticket for ticket in entry.waiting if ticket not in out]
            return out

    @staticmethod
    def _stranded(entry: _Entry) -> list[Ticket]:
        """What no lane that is open can take."""
        return [t for t in entry.waiting if not any(number > t.after for number in entry.lanes)]

    def seconds_left(self, lanes: int) -> float:
        """Estimated work that waits, in seconds, with so many lanes at it."""
        with self._lock:
            left = 0.0
            for entry in self._machines.values():
                left += sum(self._seconds(ticket) for ticket in entry.waiting)
                if entry.waiting and not entry.lanes:
                    left += self._estimates.bring_up(entry.machine.guest.name)
            return left / max(1, lanes)

    def _seconds(self, ticket: Ticket) -> float:
        return self._estimates.cell(ticket.cell) * (self._repeat - len(ticket.done))
