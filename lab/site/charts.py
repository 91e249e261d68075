"""Charts: the figures of runs as data. `templates/charts.html` draws them as SVG and as tables."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count, pairwise, takewhile
from pathlib import Path

from lab.base.files import plain
from lab.causes.evidence import why_not
from lab.record import RunResult, Status
from lab.run.journal import RUN_LOG
from lab.site.model import Seen, SeenRun


class Kind(StrEnum):
    """One kind of work of a lane. The value is its name for readers; `css` names its pattern and colour."""

    IMAGE = "image"
    START = "start of the guest"
    DEPLOY = "deployment"
    SETUP = "fork and variant"
    SUITE = "suite"
    EVIDENCE = "evidence"
    TRIALS = "remedies and experiments"
    WAITING = "waiting"
    OTHER = "other"

    @property
    def css(self) -> str:
        """The name of its class and of its pattern."""
        return f"kind-{self.name.lower()}"


# The steps in `seconds` of a lane and of a cell.
LANE_STEPS = {
    "boot": Kind.START,
    "fetch": Kind.DEPLOY,
    "deploy": Kind.DEPLOY,
    "checkpoint": Kind.DEPLOY,
}
CELL_STEPS = {
    "fork": Kind.SETUP,
    "apply": Kind.SETUP,
    "suite": Kind.SUITE,
    "evidence": Kind.EVIDENCE,
}

# How the lines of `run.log` about a lane begin; a longer one stands before a shorter one.
BEGINNINGS = {
    "image: waiting": Kind.WAITING,
    "image: ": Kind.IMAGE,
    "waiting for ": Kind.WAITING,
    "finding out about KVM": Kind.WAITING,
    "booting": Kind.START,
    "restoring": Kind.START,
    "storing its boot": Kind.START,
    "fetching": Kind.DEPLOY,
    "deploying": Kind.DEPLOY,
    "taking a checkpoint": Kind.DEPLOY,
}


def kind_of(step: str, variants: Collection[str]) -> Kind:
    """Return what a lane does in a step of `run.log`; `variants` are those of the run."""
    for beginning, kind in BEGINNINGS.items():
        if step.startswith(beginning):
            return kind
    variant, _, what = step.partition(": ")
    if variant not in variants:
        return Kind.OTHER
    match what.partition(" ")[0]:
        case "":
            return Kind.SETUP
        case "running":
            return Kind.SUITE
        case "gathering":
            return Kind.EVIDENCE
        case "trying" | "experiment:":
            return Kind.TRIALS
    return Kind.OTHER


@dataclass(frozen=True)
class Segment:
    """A stretch of a lane's time: its start in seconds since the start of the axis, its length, what it is."""

    kind: Kind
    start: float
    seconds: float
    step: str


@dataclass(frozen=True)
class LaneTime:
    """One row of the chart: a lane, or a guest if only sums are known."""

    name: str
    segments: list[Segment]

    @property
    def start(self) -> float:
        return self.segments[0].start

    @property
    def end(self) -> float:
        return self.segments[-1].start + self.segments[-1].seconds

    @property
    def sums(self) -> Counter[Kind]:
        """Return the seconds per kind of work."""
        found: Counter[Kind] = Counter()
        for segment in self.segments:
            found[segment.kind] += segment.seconds  # type: ignore[assignment]  # a Counter holds any number
        return found


# Distances between ticks that people read easily, in seconds: up to a minute, an hour, and days.
DISTANCES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
# A phone of 320 pixels has room for this many labels.
MOST_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its position in percent of the axis, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """An axis from 0 to `end` seconds."""

    end: float

    def percent(self, seconds: float) -> float:
        """Return how far along the axis a time is, in percent."""
        return round(100 * seconds / self.end, 3) if self.end else 0.0

    @property
    def ticks(self) -> list[Tick]:
        """Return at most MOST_TICKS marks at round times, the first at 0."""
        return [Tick(self.percent(at), duration(at)) for at in self._times()]

    def _times(self) -> Iterator[float]:
        days = (86400.0 * number for number in count(2))
        fits = (each for each in (*DISTANCES, *takewhile(lambda day: day <= self.end, days)))
        distance = next((each for each in fits if self.end / each < MOST_TICKS), self.end or 1.0)
        yield from takewhile(lambda at: at <= self.end, (number * distance for number in count()))


def duration(seconds: float) -> str:
    """Return seconds as people say them: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = {"h": hours, "min": minutes, "s": 0 if hours else rest}
    return " ".join(f"{value} {unit}" for unit, value in parts.items() if value)


LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)")
# The step by which `run.log` says that a lane has ended.
DONE = "done"
# What stands there in place of a lane before what was told once.
NOTE = "note"
# A log beyond this size is not read; a run of 1,280 cells writes 0.5 MB.
MOST_BYTES = 64 * 2**20
# A chart with more segments does not describe each of them: the page stays below a megabyte.
MOST_DESCRIBED = 1500


@dataclass(frozen=True)
class Timeline:
    """The lanes of a run, or of one session of a run that was resumed.

    `began` is the time at the start of the axis; None if only sums are known: then a row is a guest, and the
    order and the starts of its segments say nothing.
    """

    lanes: list[LaneTime]
    began: datetime | None = None

    def named(self, name: Callable[[str], str]) -> "Timeline":
        """The same with other names for its lanes."""
        return replace(self, lanes=[replace(lane, name=name(lane.name)) for lane in self.lanes])

    @property
    def scale(self) -> Scale:
        return Scale(max((lane.end for lane in self.lanes), default=0.0))

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of work that occur, in their usual order."""
        found = {segment.kind for lane in self.lanes for segment in lane.segments}
        return [kind for kind in Kind if kind in found]

    @property
    def is_small(self) -> bool:
        """Whether there is room in the page to describe each segment."""
        return sum(len(lane.segments) for lane in self.lanes) <= MOST_DESCRIBED

    def time(self, seconds: float) -> str:
        """Return the time of day (UTC) of a point on the axis."""
        return (self.began + timedelta(seconds=seconds)).strftime("%H:%M:%S") if self.began else ""


def timelines(run: RunResult, folder: Path | None = None) -> list[Timeline]:
    """Return one timeline for each session of a run from `run.log` in its folder; sums if there is no log.

    The log of a merged run tells only of the session in which it was resumed.
    """
    log = folder / RUN_LOG if folder and not run.run.merged and not why_not(folder, RUN_LOG) else None
    if log and log.stat().st_size <= MOST_BYTES:
        found = from_log(run, log.read_text(errors="replace").splitlines())
        if found:
            return found
    summed = sums(run)
    return [summed] if summed.lanes else []


def sums(run: RunResult) -> Timeline:
    """Return the seconds per guest and kind of work that the record holds."""
    spent: dict[str, Counter[Kind]] = {}
    for guest, kind, seconds in _recorded(run):
        counter = spent.setdefault(guest, Counter())
        counter[kind] += seconds  # type: ignore[assignment]  # a Counter holds any number
    return Timeline([LaneTime(guest, list(_in_a_row(each))) for guest, each in spent.items() if each.total()])


def _recorded(run: RunResult) -> Iterator[tuple[str, Kind, float]]:
    for lane in run.run.lanes:
        yield from ((lane.guest, kind, lane.seconds.get(step, 0.0)) for step, kind in LANE_STEPS.items())
    for cell in run.cells:
        yield from ((cell.guest, kind, cell.seconds.get(step, 0.0)) for step, kind in CELL_STEPS.items())
        trials = sum(tried.seconds for tried in cell.remedies)
        yield cell.guest, Kind.TRIALS, trials + (cell.experiment.seconds if cell.experiment else 0.0)


def _in_a_row(spent: Counter[Kind]) -> Iterator[Segment]:
    start = 0.0
    for kind in Kind:
        if spent[kind]:
            yield Segment(kind, start, spent[kind], "")
            start += spent[kind]


@dataclass(frozen=True)
class _Event:
    at: datetime
    lane: str
    step: str


def from_log(run: RunResult, lines: Iterable[str]) -> list[Timeline]:
    """Return a timeline for each session in the lines of a run's log; none if they name no lane."""
    guests = {cell.guest for cell in run.cells}
    cells = tuple({f"{cell.guest} {cell.variant} " for cell in run.cells})
    sessions: list[list[_Event]] = [[] for _ in [run.run.started, *run.run.resumed]]
    for line in lines:
        if event := _event(line, guests, cells):
            sessions[sum(event.at >= resumed for resumed in run.run.resumed)].append(event)
    variants = {cell.variant for cell in run.cells}
    return [_session(events, variants) for events in sessions if len(events) > 1]


def _event(line: str, guests: set[str], cells: tuple[str, ...]) -> _Event | None:
    """Return what a line says about a lane; None if it is about a cell, or a note."""
    matched = LINE.fullmatch(plain(line))
    if not matched or matched[2].startswith(cells):
        return None
    lane, separator, step = matched[2].partition(": ")
    host = ""
    if separator and lane != NOTE and lane.partition(" ")[0] not in guests:
        # In a run on several hosts the host stands before the lane.
        host, (lane, separator, step) = f"{lane}: ", step.partition(": ")
    if not separator or lane.partition(" ")[0] not in guests:
        return None
    lane = f"{host}{lane}"
    try:
        return _Event(datetime.fromisoformat(matched[1]), lane, step)
    except ValueError:
        return None


@dataclass
class _Lane:
    """The events of a lane while a log is read."""

    events: list[_Event] = field(default_factory=list)

    def segments(self, began: datetime, ended: datetime, variants: set[str]) -> Iterator[Segment]:
        """Yield a segment from each event to the next; the last one lasts until `ended` unless it says done."""
        trying = False
        last = _Event(ended, "", DONE)
        for event, following in pairwise([*self.events, last]):
            if event.step == DONE:
                continue
            kind = kind_of(event.step, variants)
            # A remedy or an experiment runs the suite again, up to the next cell.
            trying = kind is Kind.TRIALS or (trying and kind in (Kind.SUITE, Kind.EVIDENCE, Kind.WAITING))
            start, seconds = (event.at - began).total_seconds(), (following.at - event.at).total_seconds()
            shown = Kind.TRIALS if trying and kind is not Kind.WAITING else kind
            yield Segment(shown, start, max(seconds, 0.0), event.step)


def _session(events: list[_Event], variants: set[str]) -> Timeline:
    began, ended = min(each.at for each in events), max(each.at for each in events)
    lanes: dict[str, _Lane] = {}
    for event in sorted(events, key=lambda each: each.at):
        lanes.setdefault(event.lane, _Lane()).events.append(event)
    rows = [LaneTime(name, list(lane.segments(began, ended, variants))) for name, lane in lanes.items()]
    hosts = list(dict.fromkeys(_host(row.name) for row in rows))
    shown = sorted((row for row in rows if row.segments), key=lambda row: hosts.index(_host(row.name)))
    return Timeline(shown, began)


def _host(lane: str) -> str:
    """The host of a lane in a run on several, whose lanes stand together; empty in a run on one."""
    host, separator, _ = lane.partition(": ")
    return host if separator else ""


# Statuses that say something about boxlite.
DECIDED = (Status.PASS, Status.FAIL, Status.XFAIL, Status.XPASS, Status.FLAKY)
# An unexpected pass is a pass.
PASSED = (Status.PASS, Status.XPASS)
# More bars beside each other than this cannot be told apart on a phone.
MOST_COLUMNS = 24


@dataclass(frozen=True)
class Column:
    """One build in one run."""

    run: str
    build: str


@dataclass(frozen=True)
class Rate:
    """How many of a guest's cells with a result passed.

    `same_cells`: the rate is over the same variants as the one before.
    """

    passed: int
    decided: int
    same_cells: bool = True

    @property
    def percent(self) -> int:
        """The share that passed, in percent."""
        return round(100 * self.passed / self.decided)

    def __str__(self) -> str:
        return f"{self.passed}/{self.decided}"


@dataclass(frozen=True)
class PassRates:
    """The rates of each guest by column; None where no cell of the guest has a result.

    `left_out` counts the older columns that are not shown.
    """

    columns: list[Column]
    guests: dict[str, list[Rate | None]]
    left_out: int

    @property
    def have_other_cells(self) -> bool:
        """Whether any rate is over other cells than the one before."""
        return any(rate and not rate.same_cells for rates in self.guests.values() for rate in rates)


def pass_rates(runs: Iterable[SeenRun]) -> PassRates:
    """Return the rates of each build in each run, the oldest run first."""
    ordered = sorted(runs, key=lambda run: run.started)
    pairs = [(run, build) for run in ordered for build in _builds(run)]
    shown = pairs[-MOST_COLUMNS:]
    guests = sorted({cell.guest for run, _ in shown for cell in run.cells})
    return PassRates(
        [Column(run.id, build) for run, build in shown],
        {guest: _rates([_decided(run, build, guest) for run, build in shown]) for guest in guests},
        len(pairs) - len(shown),
    )


def _builds(run: SeenRun) -> list[str]:
    """The builds of a run's cells, in the order of the run's command."""
    names = dict.fromkeys(cell.build for cell in run.cells)
    return [
        *(name for name in run.builds if name in names),
        *(name for name in names if name not in run.builds),
    ]


def _decided(run: SeenRun, build: str, guest: str) -> list[Seen]:
    return [cell for cell in run.cells if (cell.build, cell.guest) == (build, guest) and cell.status in DECIDED]


def _rates(columns: Sequence[Sequence[Seen]]) -> list[Rate | None]:
    rates: list[Rate | None] = []
    before: set[str] = set()
    for cells in columns:
        if not cells:
            rates.append(None)
            continue
        variants = {cell.variant for cell in cells}
        passed = sum(cell.status in PASSED for cell in cells)
        rates.append(Rate(passed, len(cells), same_cells=not before or before == variants))
        before = variants
    return rates
