"""Shows a run in progress: as a table that fills in, as one line per event, or not at all."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.base.files import bounded, inert, plain
from lab.plan import Cell
from lab.record import CellResult, Status
from lab.report import squares
from lab.report.terminal import STYLES, styled, tables
from lab.run.observer import Silent

# Longest text of an event, in characters.
LONGEST = 4000


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
            lines = [
                Text(f"{lane}: {text} ({self._served[lane]} done)", "dim")
                for lane, text in self._doing.items()
                if text
            ]
            now = time.monotonic()
            parts = [f"{len(self._done)} of {self._total} cells", _clock(now - self._start)]
            if lines:
                parts.append(self._left(now))
            tables = self._tables(self._console.height - len(lines) - 2)
        return Group(*tables, Text(), *lines, Text(", ".join(parts), "bold"))

    def _left(self, now: float) -> str:
        """Say how much time is left. An estimate that has run out says nothing about the rest."""
        if self._end is None or self._end <= now:
            return "time left unknown"
        return f"about {_clock(self._end - now)} left"

    def _tables(self, height: int) -> list[Table]:
        """Return the table of squares, or counts by guest and status if the squares do not fit the screen."""
        rows = {guest: [self._square((guest, *column)) for column in self._columns] for guest in self._guests}
        made = tables(list(self._columns.values()), rows, self._console.width)
        lines = sum(len(self._console.render_lines(table, pad=False)) for table in made)
        return made if lines <= height else tables(*self._counts(), self._console.width)

    def _counts(self) -> tuple[list[str], dict[str, list[Text]]]:
        found = Counter((each.guest, each.status) for each in self._done.values())
        statuses = [status for status in Status if any(status is key[1] for key in found)]
        left = Counter(guest for guest, *_ in self._planned - self._done.keys())
        rows = {
            guest: [
                Text(str(left[guest] or "")),
                *[Text(str(found[guest, status] or ""), STYLES[status]) for status in statuses],
            ]
            for guest in self._guests
        }
        return ["left", *statuses], rows

    def _square(self, key: tuple[str, str, str]) -> Text:
        decided = self._done.get(key)
        return Text("·", "dim") if decided is None and key in self._planned else styled(decided)


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


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
