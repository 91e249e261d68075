"""Shows a run in progress: as a table that fills in, as one line per event, or not at all."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.base.files import bounded, inert, plain
from lab.plan import Cell
from lab.record import CellResult, Status
from lab.report import squares
from lab.report.terminal import STYLES, fewest_lines, styled, tables
from lab.run.observer import Silent

# Longest text of an event, in characters.
LONGEST = 4000
# The lines that are kept for the smallest table, and for those around it.
LEAST_TABLE = 7


class Lines(Silent):
    """Prints one line per lane step and cell, with the seconds since the start: for pipes, CI, --verbose."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console = console
        self._total, self._done = total, done
        self._last: dict[str, str] = {}
        self._start = time.monotonic()
        self._lock = threading.RLock()

    def lane(self, lane: str, text: str) -> None:
        step = squares.step(text)
        with self._lock:
            if step and step != self._last.get(lane):
                self._line(f"{lane}: {step}")
            self._last[lane] = step

    def cell(self, result: CellResult) -> None:
        with self._lock:
            self._done += 1
            name = f"{result.guest} {result.variant} {result.build}"
            self._line(f"{self._done}/{self._total} {name}: {squares.outcome(result)}")

    def note(self, text: str) -> None:
        self._line(f"note: {text}")

    def _line(self, text: str) -> None:
        spent = time.monotonic() - self._start
        shown = inert(plain(bounded(text, LONGEST)))
        self._console.print(Text(f"[{spent:5.0f} s] {shown}"), soft_wrap=True)


class LiveTable(Silent):
    """Shows the table, each lane's step and number of finished cells, and the time left."""

    def __init__(self, console: Console, cells: Sequence[Cell], kept: Collection[CellResult]) -> None:
        self._console = console
        self._columns = squares.columns((cell.variant.name, cell.build.name) for cell in cells)
        self._guests = list(dict.fromkeys(cell.guest.name for cell in cells))
        self._planned = {(cell.guest.name, cell.variant.name, cell.build.name) for cell in cells}
        self._total = len(cells)
        self._done = {(each.guest, each.variant, each.build): each for each in kept}
        self._doing: dict[str, str] = {}
        self._served: Counter[str] = Counter()
        self._end: float | None = None
        self._start = time.monotonic()
        self._lock = threading.RLock()
        self.live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def lane(self, lane: str, text: str) -> None:
        with self._lock:
            self._doing[lane] = plain(bounded(text, LONGEST))

    def cell(self, result: CellResult) -> None:
        with self._lock:
            self._done[result.guest, result.variant, result.build] = result
            self._served[result.lane] += 1

    def note(self, text: str) -> None:
        self._console.print(Text(f"note: {plain(bounded(text, LONGEST))}", "cyan"))

    def time_left(self, seconds: float | None) -> None:
        with self._lock:
            self._end = None if seconds is None else time.monotonic() + seconds

    def _render(self) -> Group:
        with self._lock:
            lanes = {lane: f"{text} ({self._served[lane]} done)" for lane, text in self._doing.items() if text}
            now = time.monotonic()
            parts = [f"{len(self._done)} of {self._total} cells", _clock(now - self._start)]
            if lanes:
                left = self._end and self._end - now
                # An estimate that has run out says nothing about the rest.
                parts.append(f"about {_clock(left)} left" if left and left > 0 else "time left unknown")
            last = Text(", ".join(parts), "bold")
            lines = [Text(f"{lane}: {text}", "dim") for lane, text in lanes.items()]
            if (more := len(lines) - self._console.height + LEAST_TABLE) > 0:
                lines[-more - 1 :] = [Text(f"and {more + 1} more lanes", "dim")]
            room = self._console.height - 2 - len(lines)
            *larger, least = self._tables()
            table = next((table for table in larger if self._height(table) <= room), least)
        return Group(*table, Text(), *lines, last)

    def _height(self, shown: Sequence[RenderableType]) -> int:
        return sum(len(self._console.render_lines(each, pad=False)) for each in shown)

    def _tables(self) -> Iterator[list[Table]]:
        """The table of squares, the counts by guest and status, and those of all guests together.

        Without the squares if they do not fit the screen in any way: those of 3,000 cells take their time.
        """
        width = self._console.width
        if self._may_fit():
            rows = {guest: [self._square((guest, *each)) for each in self._columns] for guest in self._guests}
            yield tables(list(self._columns.values()), rows, width)
        yield tables(*self._counts({guest: guest for guest in self._guests}), width)
        yield tables(*self._counts(dict.fromkeys(self._guests, f"{len(self._guests)} guests")), width)

    def _may_fit(self) -> bool:
        """Whether there may be room for the table of squares."""
        height, width = self._console.height, self._console.width
        return fewest_lines(list(self._columns.values()), len(self._guests), width) < height

    def _counts(self, names: Mapping[str, str]) -> tuple[list[str], dict[str, list[Text]]]:
        """The heads and rows of a table of counts; `names` maps each guest to the name of its row."""
        known = {key: cell.status for key, cell in self._done.items()}
        found = Counter((names[guest], status) for (guest, *_), status in known.items())
        statuses = [status for status in Status if any(status is key[1] for key in found)]
        waiting = Counter(names[guest] for guest, *_ in self._planned - known.keys())
        rows = {
            name: [
                Text(str(waiting[name] or "")),
                *[Text(str(found[name, status] or ""), STYLES[status]) for status in statuses],
            ]
            for name in dict.fromkeys(names.values())
        }
        return ["left", *statuses], rows

    def _square(self, key: tuple[str, str, str]) -> Text:
        decided = self._done.get(key)
        return Text("·", "dim") if decided is None and key in self._planned else styled(decided)


def _clock(seconds: float) -> str:
    """A time in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def view(
    console: Console, cells: Sequence[Cell], kept: Collection[CellResult], *, quiet: bool, verbose: bool
) -> Iterator[Silent]:
    """Yield the observer that shows a run on this console."""
    if quiet:
        yield Silent()
    elif verbose or not console.is_terminal:
        # A live table would fill a pipe with copies of itself.
        yield Lines(console, len(cells), len(kept))
    else:
        table = LiveTable(console, cells, kept)
        with table.live:
            yield table
