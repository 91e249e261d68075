"""The time of a run's lanes as data. `templates/charts.html` draws it as SVG and as tables."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

from lab.base.activity import Activity
from lab.base.files import group_values
from lab.record import LaneStep, RunInfo

# Distances between ticks that people read easily, in seconds: up to a minute, an hour, and days.
DISTANCES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
# A phone of 320 pixels has room for this many labels.
MOST_TICKS = 5


def ticks(end: float) -> list[float]:
    """Return at most MOST_TICKS round times on an axis from 0 to `end`, in seconds; the first is 0."""
    days = 86400.0 * math.ceil(end / 86400 / (MOST_TICKS - 1))
    distance = next((distance for distance in DISTANCES if end / distance < MOST_TICKS), days)
    return [distance * number for number in range(MOST_TICKS) if distance * number <= end]


def format_duration(seconds: float) -> str:
    """Return seconds as people say them: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = {"h": hours, "min": minutes, "s": 0 if hours else remainder}
    return " ".join(f"{value} {unit}" for unit, value in parts.items() if value)


@dataclass(frozen=True)
class Timeline:
    """The lanes of one session of a run. Times are in seconds since the first step began."""

    title: str
    steps: Sequence[LaneStep]

    @cached_property
    def began(self) -> datetime:
        return min(step.began for step in self.steps)

    @cached_property
    def lanes(self) -> dict[str, list[LaneStep]]:
        """The steps of each lane. By name: the lanes of a host stand together, and so do those of a guest."""
        ordered = sorted(self.steps, key=lambda step: (step.lane, step.began))
        return group_values((step.lane, step) for step in ordered)

    def start(self, step: LaneStep) -> float:
        return (step.began - self.began).total_seconds()

    def end(self, step: LaneStep) -> float:
        return self.start(step) + step.seconds

    @cached_property
    def length(self) -> float:
        return max(self.end(steps[-1]) for steps in self.lanes.values())

    def percent(self, seconds: float) -> float:
        """Return how far along the axis a time is, in percent."""
        return round(100 * seconds / self.length, 3) if self.length else 0.0

    @property
    def ticks(self) -> list[float]:
        return ticks(self.length)

    def sums(self, lane: str) -> Counter[Activity]:
        seconds: Counter[Activity] = Counter()
        for step in self.lanes[lane]:
            # A Counter holds any number.
            seconds[step.activity] += step.seconds  # type: ignore[assignment]
        return seconds

    @property
    def activities(self) -> list[Activity]:
        """The activities that occur, in their usual order."""
        occurring = {step.activity for step in self.steps}
        return [activity for activity in Activity if activity in occurring]

    def time(self, seconds: float) -> str:
        """Return the time of day (UTC) of a point on the axis."""
        # On any day: a record from elsewhere may have a date that cannot be counted on from.
        start = datetime.combine(date(2000, 1, 1), self.began.time())
        return (start + timedelta(seconds=seconds % 86400)).strftime("%H:%M:%S")


def draw_timelines(info: RunInfo) -> list[Timeline]:
    """Return a timeline for each session of a run, and before them those of the runs it was merged from."""
    of_parts = [timeline for part in info.merged for timeline in draw_timelines(part)]
    sessions: list[list[LaneStep]] = [[] for _ in (info.started, *info.resumed)]
    for step in info.steps:
        sessions[sum(step.began >= resumed for resumed in info.resumed)].append(step)
    name = f"Run {info.id}" + (f", shard {info.shard}" if info.shard else "")
    return of_parts + [
        Timeline(f"{name}, resumed" if number else name, steps)
        for number, steps in enumerate(sessions)
        if steps
    ]
