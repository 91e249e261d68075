"""Where a run's time went: what each lane did when, from `run.log`; without that log, sums per guest."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from lab.base.files import plain
from lab.evidence import why_not
from lab.record import RunResult
from lab.run.journal import RUN_LOG
from lab.site.charts.kinds import CELL_STEPS, LANE_STEPS, Kind, kind_of
from lab.site.charts.scale import Scale
from lab.site.charts.segment import LaneTime, Segment

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
