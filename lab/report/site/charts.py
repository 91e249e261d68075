"""The time of a run's lanes as data. `templates/charts.html` draws it as SVG and as tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import count, takewhile

from lab.base.activity import Activity
from lab.record import LaneStep, RunInfo

# Distances between ticks that people read easily, in seconds: up to a minute, an hour, and days.
DISTANCES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
# A phone of 320 pixels has room for this many labels.
MOST_TICKS = 5
# A chart with more segments does not describe each of them: the page stays below a megabyte.
MOST_DESCRIBED = 1500


@dataclass(frozen=True)
class Segment:
    """A step of a lane: what it is, its start in seconds since the start of the axis, and its length."""

    activity: Activity
    start: float
    seconds: float
    text: str


@dataclass(frozen=True)
class LaneTime:
    """One row of the chart: a lane."""

    name: str
    segments: list[Segment]

    @property
    def start(self) -> float:
        return self.segments[0].start

    @property
    def end(self) -> float:
        return self.segments[-1].start + self.segments[-1].seconds

    @property
    def sums(self) -> Counter[Activity]:
        """Return the seconds of each activity."""
        seconds: Counter[Activity] = Counter()
        for segment in self.segments:
            # A Counter holds any number.
            seconds[segment.activity] += segment.seconds  # type: ignore[assignment]
        return seconds


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
        days = (86400.0 * number for number in count(2))
        distances = (*DISTANCES, *takewhile(lambda day: day <= self.end, days))
        few = (distance for distance in distances if self.end / distance < MOST_TICKS)
        distance = next(few, self.end or 1.0)
        times = takewhile(lambda at: at <= self.end, (number * distance for number in count()))
        return [Tick(self.percent(at), duration(at)) for at in times]


def duration(seconds: float) -> str:
    """Return seconds as people say them: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = {"h": hours, "min": minutes, "s": 0 if hours else rest}
    return " ".join(f"{value} {unit}" for unit, value in parts.items() if value)


@dataclass(frozen=True)
class Timeline:
    """The lanes of one session of a run. `began` is the time at the start of the axis."""

    title: str
    lanes: list[LaneTime]
    began: datetime

    @property
    def scale(self) -> Scale:
        return Scale(max(lane.end for lane in self.lanes))

    @property
    def activities(self) -> list[Activity]:
        """The activities that occur, in their usual order."""
        occurring = {segment.activity for lane in self.lanes for segment in lane.segments}
        return [activity for activity in Activity if activity in occurring]

    @property
    def is_small(self) -> bool:
        """Whether there is room in the page to describe each segment."""
        return sum(len(lane.segments) for lane in self.lanes) <= MOST_DESCRIBED

    def time(self, seconds: float) -> str:
        """Return the time of day (UTC) of a point on the axis."""
        # On any day: a record from elsewhere may have a date that cannot be counted on from.
        began = datetime.combine(date(2000, 1, 1), self.began.time())
        return (began + timedelta(seconds=seconds % 86400)).strftime("%H:%M:%S")


def timelines(info: RunInfo) -> list[Timeline]:
    """Return a timeline for each session of a run, and before them those of the runs it was merged from."""
    of_parts = [timeline for part in info.merged for timeline in timelines(part)]
    sessions: list[list[LaneStep]] = [[] for _ in (info.started, *info.resumed)]
    for step in info.steps:
        sessions[sum(step.began >= resumed for resumed in info.resumed)].append(step)
    name = f"Run {info.id}" + (f", shard {info.shard}" if info.shard else "")
    return of_parts + [
        _timeline(f"{name}, resumed" if number else name, steps)
        for number, steps in enumerate(sessions)
        if steps
    ]


def _timeline(title: str, steps: Sequence[LaneStep]) -> Timeline:
    began = min(step.began for step in steps)
    lanes: dict[str, list[Segment]] = {}
    for step in sorted(steps, key=lambda step: step.began):
        start = (step.began - began).total_seconds()
        lanes.setdefault(step.lane, []).append(Segment(step.activity, start, step.seconds, step.text))
    # By name: the lanes of a host stand together, and so do those of a guest.
    return Timeline(title, [LaneTime(name, segments) for name, segments in sorted(lanes.items())], began)
