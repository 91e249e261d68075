"""The cells left to run: which machine needs a lane next, and which cell a lane takes next."""

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median

from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.lane.running import COLD
from lab.plan import BRING_UP_AGAIN_SECONDS, BRING_UP_SECONDS, Cell, Machine
from lab.record import CellResult, Fault, Prediction, RunOptions

# After a limit ended a suite: one that does not end in twice the time hangs.
MORE_TIME = SuiteOptions(stretch=2.0)


class Estimates:
    """Estimated seconds of cells and lanes: typical ones, times how slow the suites of the run were so far.

    Each architecture by itself: guests of the host's own may have KVM, and those of another are emulated.
    """

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._ratios: dict[str, list[float]] = {}

    def learn(self, cell: Cell, result: CellResult) -> None:
        """Learn how fast this host is from a cell whose suite ran."""
        spent = sum(result.suite.seconds.values())
        if result.tests and spent:
            # The seconds of a cold cell include its boot.
            typical = cell.typical_seconds() + (BRING_UP_SECONDS if result.suite.fork == COLD else 0.0)
            self._ratios.setdefault(cell.guest.arch, []).append(spent / typical)

    @property
    def are_measured(self) -> bool:
        """Whether a suite of the run was timed; without that all seconds are those of another host."""
        return bool(self._ratios)

    def _ratio(self, arch: str) -> float:
        if arch in self._ratios:
            return median(self._ratios[arch])
        # Typical seconds are those of emulation: what others took under KVM says nothing of it.
        return max(1.0, median(chain(*self._ratios.values()))) if self._ratios else 1.0

    def cell(self, cell: Cell) -> float:
        """Seconds for one repeat of a cell, with its trials."""
        return cell.typical_seconds(self._options) * self._ratio(cell.guest.arch)

    def bring_up(self, arch: str, *, again: bool = False) -> float:
        """Seconds to bring a lane up; `again`: a further one of a guest whose boot is stored."""
        return (BRING_UP_AGAIN_SECONDS if again else BRING_UP_SECONDS) * self._ratio(arch)


@dataclass(eq=False)
class Ticket:
    """A cell that is waiting or being run, with its finished repeats and the faults of the lab met so far.

    `errors` are these in words, and `faults` those of them that a suite which ran met.

    `prediction` is what the probes said before its build was deployed, if they ran then.

    `decided` is its kept result, if only remedies or experiments are left to be tried on it, with the remedies
    that were tried. After a fault only a fresh lane may take it: one with a number above `after_lane`.
    """

    cell: Cell
    decided: CellResult | None = None
    prediction: Prediction | None = None
    repeats: list[CellResult] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    after_lane: int = 0
    # Whether a lane has taken it; otherwise it waits.
    is_taken: bool = False

    def __post_init__(self) -> None:
        self.machine = self.cell.machine.name

    @property
    def missed_a_limit(self) -> bool:
        """Whether its suite was too slow for a limit: it is run again while no other lane is at work."""
        return any(fault.missed_a_limit for fault in self.faults)

    @property
    def options(self) -> SuiteOptions:
        """How its suite is run: with more time than usual after a limit ended it, to see whether it hangs."""
        return MORE_TIME if Fault.TIME_LIMIT in self.faults else WHOLE_SUITE


@dataclass
class _Lane:
    """One open lane: whether it is up and has taken a ticket."""

    is_up: bool = False
    has_served: bool = False


@dataclass
class _Entry:
    """One machine with its open lanes by number."""

    machine: Machine
    lanes: dict[int, _Lane] = field(default_factory=dict)
    # Whether it gets no second lane: one failed to come up while another one was open.
    single: bool = False


class Backlog:
    """The tickets of the cells that are not decided. Lanes call it from their own threads."""

    def __init__(
        self,
        cells: Iterable[Cell],
        estimates: Estimates,
        *,
        decided: Mapping[Path, CellResult] | None = None,
        cold: bool = False,
        repeat: int = 1,
        in_order: bool = False,
    ) -> None:
        """`decided` maps the folders of cells on which more is to be tried to their kept results.

        `in_order`: the cells come in the order in which they are to be run, and so do their machines.
        """
        self._in_order = in_order
        self._estimates = estimates
        self._repeat = repeat
        self._cold = cold
        self._lock = threading.RLock()
        self._machines: dict[str, _Entry] = {}
        # In the order in which lanes take them.
        self._tickets: list[Ticket] = []
        # Whether a suite of this session has come to an end.
        self._has_answer = False
        for cell in cells:
            self.add(cell, (decided or {}).get(cell.folder))

    def add(self, cell: Cell, decided: CellResult | None = None) -> None:
        """Take in a cell, with its kept result if only more is to be tried on it."""
        with self._lock:
            self._machines.setdefault(cell.machine.name, _Entry(cell.machine))
            self._tickets.append(Ticket(cell, decided))

    def next_machines(self) -> list[Machine]:
        """The machines for which a new lane would help, the one with the most work left first.

        If cells are run in their order, it is the one with the next cell.

        That order keeps a long lane from running alone at the end.
        """
        with self._lock:
            needs = {name: need for name, entry in self._machines.items() if (need := self._need(entry)) > 0}
            if self._in_order:
                first = list(dict.fromkeys(ticket.machine for ticket in self.waiting()))
                return [self._machines[name].machine for name in first if name in needs]
            return [self._machines[name].machine for name in sorted(needs, key=lambda n: -needs[n])]

    def _need(self, entry: _Entry) -> float:
        """Seconds of work for one more lane of the machine; 0 if it would not help."""
        waiting = self.waiting(entry.machine.name)
        seconds_left = sum(self._seconds(ticket) for ticket in waiting)
        arch = entry.machine.guest.arch
        bring_up = self._estimates.bring_up(arch)
        if self._cold:
            # A cold lane runs one cell: each lane that has taken none yet will take one.
            on_their_way = [lane for lane in entry.lanes.values() if not lane.has_served]
            return seconds_left + bring_up if len(waiting) > len(on_their_way) else 0.0
        stranded = self._stranded(entry)
        if stranded:
            return bring_up + sum(self._seconds(ticket) for ticket in stranded)
        if entry.single or not seconds_left or not all(lane.is_up for lane in entry.lanes.values()):
            return 0.0
        # One more lane must save more time than its own start takes.
        lanes = len(entry.lanes)
        bring_up = self._estimates.bring_up(
            arch, again=not entry.machine.arguments
        )  # With those no boot is stored.
        return seconds_left / lanes if seconds_left / lanes > bring_up + seconds_left / (lanes + 1) else 0.0

    def lane_opened(self, machine: str, number: int) -> None:
        with self._lock:
            self._machines[machine].lanes[number] = _Lane()

    def lane_is_up(self, machine: str, number: int) -> None:
        with self._lock:
            self._machines[machine].lanes[number].is_up = True

    def lane_closed(self, machine: str, number: int) -> None:
        with self._lock:
            self._machines[machine].lanes.pop(number, None)

    def take(self, machine: str, number: int) -> Ticket | None:
        """The next ticket for this lane, or None if there is none that it may take.

        They come in the order of the plan. But until the run has shown what a suite did, the shortest comes
        first, so that a user who waits for a first answer has it soon.
        """
        with self._lock:
            free = [ticket for ticket in self.waiting(machine) if ticket.after_lane < number]
            in_order = self._has_answer or self._in_order
            ticket = next(iter(free), None) if in_order else min(free, key=self._seconds, default=None)
            if ticket:
                self._machines[machine].lanes[number].has_served = True
                self.begin([ticket])
            return ticket

    def waiting(self, machine: str = "") -> list[Ticket]:
        """The tickets that no lane has taken; those of one machine, if it is named."""
        with self._lock:
            return [t for t in self._tickets if not t.is_taken and machine in ("", t.machine)]

    def begin(self, tickets: Iterable[Ticket]) -> None:
        """A lane begins with these tickets, which another one elsewhere may have begun with before."""
        with self._lock:
            for ticket in tickets:
                ticket.is_taken = True

    def open(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Those of these tickets whose cells are not decided."""
        with self._lock:
            return [ticket for ticket in tickets if ticket in self._tickets]

    def put_back_unfinished(self, tickets: Iterable[Ticket]) -> None:
        """Return those of these tickets that a lane elsewhere began with and that are not decided."""
        with self._lock:
            for ticket in self.open(tickets):
                if ticket.is_taken:
                    self.put_back(ticket, after_lane=0)

    def ended(self, ticket: Ticket, result: CellResult) -> None:
        """A ticket's cell is decided: the rest is estimated by what it took, too."""
        with self._lock:
            self._take_out([ticket])
            self._has_answer |= bool(result.tests)
            self._estimates.learn(ticket.cell, result)

    def withdraw(self, ticket: Ticket) -> bool:
        """Take out a ticket that needs no lane; whether it was still waiting for one."""
        with self._lock:
            is_waiting = ticket in self.waiting(ticket.machine)
            if is_waiting:
                self._take_out([ticket])
            return is_waiting

    def put_back(self, ticket: Ticket, *, after_lane: int) -> None:
        """Return a ticket to be tried again, after all others, by a lane with a number above `after_lane`."""
        with self._lock:
            self._take_out([ticket])
            self._tickets.append(ticket)
            ticket.is_taken, ticket.after_lane = False, after_lane

    def _take_out(self, tickets: list[Ticket]) -> list[Ticket]:
        self._tickets = [ticket for ticket in self._tickets if ticket not in tickets]
        return tickets

    def lanes(self, machine: str) -> int:
        with self._lock:
            return len(self._machines[machine].lanes)

    def drop(self, machine: str, build: Build | None = None) -> list[Ticket]:
        """Take out all waiting tickets of a machine, or of one build on it, because they cannot be run."""
        with self._lock:
            return self._take_out([t for t in self.waiting(machine) if build in (None, t.cell.build)])

    def lane_failed(self, machine: str, number: int) -> list[Ticket]:
        """Close a lane that did not come up; take out the tickets that no other lane can take."""
        with self._lock:
            entry = self._machines[machine]
            self.lane_closed(machine, number)
            entry.single |= bool(entry.lanes)
            # A cold lane would have run one cell, no matter how many other lanes there are.
            could = [ticket for ticket in self.waiting(machine) if ticket.after_lane < number]
            return self._take_out(could[:1] if self._cold else self._stranded(entry))

    def _stranded(self, entry: _Entry) -> list[Ticket]:
        """The waiting tickets that no open lane may take."""
        waiting = self.waiting(entry.machine.name)
        return [ticket for ticket in waiting if not any(number > ticket.after_lane for number in entry.lanes)]

    def seconds_left(self, lanes: int) -> float | None:
        """Estimated seconds until all work is done by that many lanes; None until a suite of the run was timed.

        A cell that runs counts in full until its end, and what comes before the cells of a lane not at all.
        """
        with self._lock:
            if not self._estimates.are_measured:
                return None
            seconds = [self._seconds(ticket) for ticket in self._tickets]
            # No number of lanes makes the longest cell shorter.
            return max([sum(seconds) / max(1, lanes), *seconds])

    def _seconds(self, ticket: Ticket) -> float:
        return self._estimates.cell(ticket.cell) * (self._repeat - len(ticket.repeats))


def estimate_seconds(ticket: Ticket, options: RunOptions) -> float:
    """How long a cell takes, the same on every host."""
    return ticket.cell.typical_seconds(options) * options.repeat


def cut_tickets(tickets: Iterable[Ticket], options: RunOptions, most_seconds: float) -> list[list[Ticket]]:
    """Cut tickets into parts of at most about this length; a cell that takes longer is a part by itself."""
    parts: list[list[Ticket]] = []
    # The last part of each machine, with its length.
    last: dict[str, tuple[list[Ticket], float]] = {}
    for ticket in tickets:
        seconds, machine = estimate_seconds(ticket, options), ticket.cell.machine.name
        part, spent = last.get(machine, ([], math.inf))
        if spent + seconds > most_seconds:
            part, spent = [], 0.0
            parts.append(part)
        part.append(ticket)
        last[machine] = part, spent + seconds
    return parts
