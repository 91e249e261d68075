"""One row of the chart of a run's time, and its parts."""

from collections import Counter
from dataclasses import dataclass

from lab.site.charts.kinds import Kind


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
