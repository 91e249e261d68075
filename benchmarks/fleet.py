"""Simulates runs on many hosts: the lab's own placement of parts, with times that a real run recorded.

    python -m benchmarks.fleet LIKE [--shape GUESTSxVARIANTS]... [--hosts N]... [--lanes N] [--parts N]
        [--chart FILE]

LIKE is the folder of a real run. Each simulated cell takes as long as one of its cells with all that was tried
on it; the first lane of a guest on a host boots it, the later ones restore it. No time passes: each part ends
when the clock of the simulation says so. What the coordinator spends on a result is measured: parts are packed
with the evidence of the real run's cells, and taken in. No network is in it.
"""

import argparse
import hashlib
import heapq
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import fleet_chart, history
from benchmarks.simulated import Originals, Shape
from lab.fleet import archive
from lab.fleet.attempt import Attempt, Host, Piece
from lab.fleet.handout import Handout
from lab.fleet.intake import End, Intake
from lab.fleet.merging import Merger
from lab.fleet.part import Part
from lab.fleet.receiving import MOST_CHUNK, Receiver
from lab.plan import Cell
from lab.record import CellResult, RunOptions, RunResult
from lab.run import start
from lab.run.journal import Journal
from lab.run.observer import Silent

SHAPES = ("12x25", "12x250")
HOSTS = (1, 2, 4, 8, 16)
OPTIONS = RunOptions(remedies=True, retries=0)
MEMORY_MIB = 1 << 20
# Widest bar of the chart, in characters.
WIDEST = 50


@dataclass(frozen=True)
class Times:
    """Seconds that a real run took: of a cell, and of a lane until it serves its first one."""

    cells: list[float]
    booted: float
    restored: float

    @classmethod
    def of(cls, originals: Originals) -> "Times":
        """Read them. A run that restored no lane, or booted none, has the same seconds for both."""
        lanes = {
            restored: [
                sum(each.seconds.values()) for each in originals.run.run.lanes if each.restored is restored
            ]
            for restored in (False, True)
        }
        known = lanes[False] + lanes[True]
        booted, restored = (statistics.median(lanes[each] or known) for each in (False, True))
        return cls([_seconds(cell) for cell in originals.run.cells], booted, restored)

    def of_part(self, cells: Sequence[int], *, is_first: bool) -> float:
        """Seconds of a part with these cells, by their numbers in the plan.

        `is_first`: no part of its guest was on its host before.
        """
        own = sum(self.cells[number % len(self.cells)] for number in cells)
        return own + (self.booted if is_first else self.restored)


def _seconds(cell: CellResult) -> float:
    tried = sum(each.seconds for each in cell.remedies)
    return sum(cell.seconds.values()) + tried + (cell.experiment.seconds if cell.experiment else 0.0)


@dataclass
class Outcome:
    """One simulated run. `work` are the seconds of all lanes together, `longest` those of the longest part.

    `placing` are the processor seconds that the decisions took, which are real.
    """

    hosts: int
    lanes: int
    parts: int
    wall: float = 0.0
    work: float = 0.0
    longest: float = 0.0
    boots: int = 0
    placing: float = 0.0

    @property
    def bound(self) -> float:
        """What no placement of these parts could be faster than."""
        return max(self.longest, self.work / self.lanes)

    @property
    def limit(self) -> str:
        """What the bound is."""
        if self.parts < self.lanes:
            return f"{self.parts} parts for {self.lanes} lanes"
        return "the longest part" if self.longest > self.work / self.lanes else "the work of all lanes"


def simulate(plan: Sequence[Cell], times: Times, hosts: int, lanes: int) -> Outcome:
    """Hand a plan out to hosts with so many lanes each, on a clock of its own."""
    handout = Handout(plan, OPTIONS)
    number = {cell.folder: each for each, cell in enumerate(plan)}
    handout.hosts = {name: Host(name, lanes, MEMORY_MIB) for name in (f"host-{each}" for each in range(hosts))}
    found = Outcome(hosts, hosts * lanes, len(handout.waiting))
    booted: set[tuple[str, str]] = set()
    ends: list[tuple[float, int, str]] = []
    order, now = count(), 0.0
    begun = time.process_time()
    while not handout.is_done:
        while attempt := handout.next():
            key = attempt.host, attempt.piece.cells[0].machine.name
            cells = [number[cell.folder] for cell in attempt.piece.cells]
            seconds = times.of_part(cells, is_first=key not in booted)
            found.boots += key not in booted
            booted.add(key)
            found.work += seconds
            found.longest = max(found.longest, seconds)
            heapq.heappush(ends, (now + seconds, next(order), attempt.token))
        now, _, token = heapq.heappop(ends)
        handout.ended(token)
    found.wall, found.placing = now, time.process_time() - begun
    return found


@dataclass
class Cost:
    """What results cost: bytes of each, and the coordinator's processor seconds for it."""

    cells: int = 0
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    giving: list[float] = field(default_factory=list)
    taking: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    @property
    def seconds(self) -> float:
        """Processor seconds for the median part, given out and taken in."""
        return statistics.median(self.giving) + statistics.median(self.taking)


def measure(originals: Originals, plan: Sequence[Cell], folder: Path, most: int) -> Cost:
    """Take the results of a plan's first parts in, as the coordinator does, and measure that."""
    planned = start.begin(folder / "run", plan, command="simulated parts", options=OPTIONS, shard=None)
    planned.folder.mkdir(parents=True)
    journal = Journal(planned.folder, planned.cells, planned.info, {})
    journal.write()
    (folder / "arriving").mkdir()
    intake = Intake(Merger(journal, Silent()), Receiver(folder / "arriving"))
    handout = Handout(plan, OPTIONS)
    handout.hosts["host"] = Host("host", 1, MEMORY_MIB)
    numbers = {cell.folder: each for each, cell in enumerate(plan)}
    cost = Cost()
    for _ in range(most):
        if not (attempt := handout.next()):
            break
        begun = time.process_time()
        part = Part.of(planned.info.id, attempt.piece.number, attempt.piece.cells, OPTIONS).model_dump_json()
        cost.giving.append(time.process_time() - begun)
        result = pack(originals, attempt.piece, numbers, folder / f"part-{attempt.piece.number}")
        begun = time.process_time()
        fault = take(intake, attempt, result)
        cost.taking.append(time.process_time() - begun)
        if fault:
            raise SystemExit(f"part {attempt.piece.number}: {fault}")
        handout.ended(attempt.token)
        cost.cells += len(attempt.piece.cells)
        cost.sent.append(len(part))
        cost.received.append(len(result))
    cost.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return cost


def pack(originals: Originals, piece: Piece, numbers: dict[Path, int], folder: Path) -> bytes:
    """The archive that a host would send for a part."""
    leave(originals, piece.cells, numbers, folder)
    archive.pack(folder, folder / "result", [cell.folder for cell in piece.cells])
    return (folder / "result").read_bytes()


def leave(originals: Originals, planned: Sequence[Cell], numbers: dict[Path, int], folder: Path) -> None:
    """Leave what a host's child does, in a new folder: copies of the real run's cells and their evidence."""
    folder.mkdir()
    cells = [originals.copy(cell, numbers[cell.folder], folder / cell.folder) for cell in planned]
    guest = planned[0].guest.name
    [lane, *_] = originals.run.run.lanes
    info = originals.run.run.model_copy(
        update={
            "lanes": [lane.model_copy(update={"guest": guest, "label": guest})],
            "builds": [planned[0].build.record()],
        }
    )
    results = [cell.model_copy(update={"lane": guest}) for cell in cells]
    RunResult(run=info, cells=results).write(folder)


def take(intake: Intake, attempt: Attempt, result: bytes) -> str:
    """Take a result in as it arrives. Return what is wrong with it; empty if nothing is."""
    for offset in range(0, len(result), MOST_CHUNK):
        intake.receiver.add(attempt.token, offset, result[offset : offset + MOST_CHUNK])
    return intake.take(attempt, End(len(result), hashlib.sha256(result).hexdigest(), 0))


def show(console: Console, shape: Shape, outcomes: Sequence[Outcome]) -> None:
    """Print a table of the simulated runs, and how much faster more hosts are as a chart."""
    heads = ("hosts", "parts", "boots", "wall, min", "bound, min", "over it, %", "placing, s", "limited by")
    title = f"{shape.cells} cells, {outcomes[0].lanes // outcomes[0].hosts} lanes for each host (simulated)"
    table = Table(*heads, title=title, title_justify="left", box=None)
    for each in outcomes:
        over = 100 * (each.wall / each.bound - 1)
        figures = (each.wall / 60, each.bound / 60, over, each.placing)
        row = [each.hosts, each.parts, each.boots, *(f"{figure:.1f}" for figure in figures), each.limit]
        table.add_row(*map(str, row))
    console.print(table)
    longest = max(each.wall for each in outcomes)
    for each in outcomes:
        console.print(f"{each.hosts:4} {'#' * max(1, round(WIDEST * each.wall / longest))}", highlight=False)


def show_cost(console: Console, shape: Shape, cost: Cost) -> None:
    """Print what the coordinator spent."""
    parts = len(cost.received)
    sent, received = (statistics.median(each) / 1024 for each in (cost.sent, cost.received))
    giving, taking = statistics.median(cost.giving), statistics.median(cost.taking)
    console.print(
        f"{shape.cells} cells planned, {parts} parts of {cost.cells} cells taken in: for the median part "
        f"{sent:.1f} KiB go to a host and {received:.0f} KiB come back; {giving:.3f} processor seconds to give "
        f"it out, {taking:.3f} to take it in; at most {cost.peak_mib:.0f} MiB of memory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("like", type=Path, metavar="LIKE", help="the folder of a real run")
    parser.add_argument("--shape", type=Shape.parse, action="append", metavar="GUESTSxVARIANTS")
    parser.add_argument("--hosts", type=int, action="append", metavar="N")
    parser.add_argument("--lanes", type=int, default=2, help="of each host")
    parser.add_argument("--parts", type=int, default=10, help="how many results are taken in, for each shape")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the simulated runs, as SVG")
    history.add_options(parser)
    options = parser.parse_args()
    originals = Originals.read(options.like)
    times = Times.of(originals)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    figures, drawn = [], {}
    for shape in options.shape or [Shape.parse(text) for text in SHAPES]:
        plan = shape.plan()
        outcomes = [simulate(plan, times, hosts, options.lanes) for hosts in options.hosts or HOSTS]
        show(console, shape, outcomes)
        drawn[shape] = [(each.hosts, each.wall, each.bound) for each in outcomes]
        with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as folder:
            cost = measure(originals, plan, Path(folder), options.parts)
        show_cost(console, shape, cost)
        name = f"{shape.cells} cells"
        figures += [
            history.Figure(name=f"{name}, {each.hosts} hosts", value=each.wall, unit="s") for each in outcomes
        ]
        figures.append(history.Figure(name=f"{name}, a part", value=cost.seconds, unit="processor s"))
        figures.append(history.Figure(name=f"{name}, coordinator", value=cost.peak_mib, unit="MiB"))
    if options.chart:
        fleet_chart.write(options.chart, drawn, options.lanes)
    setting = f"{options.lanes} lanes, {', '.join(map(str, options.shape or SHAPES))}"
    history.keep(console, options, "fleet", setting=setting, figures=figures, note="The lanes are simulated.")


if __name__ == "__main__":
    main()
