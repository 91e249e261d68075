"""Draws simulated runs on many hosts as one SVG: wall time beside the bound, both axes by powers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from pathlib import Path

from benchmarks.simulated import Shape
from lab.base.files import write_atomically
from lab.site.frame import environment

# What is drawn of a run: hosts, wall time and bound, both in seconds.
Point = tuple[int, float, float]

WIDTH, HEIGHT = 360, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 40, 44
MINUTE = 60.0

TEMPLATE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" role="img" \
aria-label="{{ label }}" font-family="sans-serif" font-size="11">
<style>
text { fill: #24292f } .grid { stroke: #d0d7de } .wall { stroke: #0969da; fill: none; stroke-width: 2 }
.dot { fill: #0969da } .bound { stroke: #9a6700; fill: none; stroke-width: 2; stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .grid { stroke: #444c56 } .wall { stroke: #58a6ff }
.dot { fill: #58a6ff } .bound { stroke: #d29922 } }
</style>
{% for panel in panels %}<g transform="translate({{ loop.index0 * panel.width }} 0)">
<text x="{{ panel.left }}" y="18" font-size="13" font-weight="bold">{{ panel.title }}</text>
{% for y, text in panel.minutes %}<path class="grid" d="M{{ panel.left }} {{ y }}H{{ panel.right }}"/>
<text x="{{ panel.left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}</text>
{% endfor %}{% for x, text in panel.hosts %}<text x="{{ x }}" y="{{ panel.bottom + 16 }}" text-anchor="middle">\
{{ text }}</text>
{% endfor %}<text x="{{ panel.left }}" y="{{ panel.bottom + 34 }}">hosts; minutes: wall (line), bound (dashes)\
</text>
<path class="bound" d="{{ panel.bound }}"/><path class="wall" d="{{ panel.wall }}"/>
{% for x, y, text in panel.dots %}\
<circle class="dot" cx="{{ x }}" cy="{{ y }}" r="3"><title>{{ text }}</title>\
</circle>
{% endfor %}</g>
{% endfor %}</svg>
"""


@dataclass(frozen=True)
class Panel:
    """The chart of one shape of run."""

    title: str
    points: Sequence[Point]
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM

    @property
    def minutes(self) -> list[tuple[float, str]]:
        return [(self._y(10.0**power * MINUTE), f"{10**power:,}") for power in range(*self._decades())]

    @property
    def hosts(self) -> list[tuple[float, str]]:
        return [(self._x(hosts), f"{hosts:,}") for hosts, _, _ in self.points]

    @property
    def wall(self) -> str:
        return self._line((hosts, wall) for hosts, wall, _ in self.points)

    @property
    def bound(self) -> str:
        return self._line((hosts, bound) for hosts, _, bound in self.points)

    @property
    def dots(self) -> list[tuple[float, float, str]]:
        return [
            (
                self._x(hosts),
                self._y(wall),
                f"{hosts} hosts: {wall / MINUTE:.0f} min, bound {bound / MINUTE:.0f} min",
            )
            for hosts, wall, bound in self.points
        ]

    def _line(self, points: Iterable[tuple[int, float]]) -> str:
        return "M" + "L".join(f"{self._x(hosts)} {self._y(seconds)}" for hosts, seconds in points)

    def _decades(self) -> tuple[int, int]:
        """The powers of ten of minutes that are marked: from the first to behind the last."""
        seconds = [value for point in self.points for value in point[1:]]
        return floor(log10(min(seconds) / MINUTE)), ceil(log10(max(seconds) / MINUTE)) + 1

    def _x(self, hosts: int) -> float:
        most = log2(max(point[0] for point in self.points)) or 1.0
        return round(self.left + 8 + (self.right - self.left - 16) * log2(hosts) / most, 1)

    def _y(self, seconds: float) -> float:
        first, behind = self._decades()
        share = (log10(seconds / MINUTE) - first) / max(1, behind - 1 - first)
        return round(self.bottom - (self.bottom - TOP) * share, 1)


def draw(found: Mapping[Shape, Sequence[Point]], lanes: int) -> str:
    """Return the chart, a panel for each shape."""
    panels = [Panel(f"{shape.cells:,} cells, {lanes} lanes a host", points) for shape, points in found.items()]
    label = "; ".join(f"{panel.title}: {', '.join(text for *_, text in panel.dots)}" for panel in panels)
    size = {"width": WIDTH * len(panels), "height": HEIGHT}
    return environment().from_string(TEMPLATE).render(panels=panels, label=label, **size) + "\n"


def write(file: Path, found: Mapping[Shape, Sequence[Point]], lanes: int) -> None:
    """Write the chart into a file."""
    write_atomically(file, draw(found, lanes))
