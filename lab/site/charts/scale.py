"""Scales: round ticks for an axis of seconds, and positions along it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile

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
