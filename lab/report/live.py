"""What shows a run in progress: a live table, a line per event, the run's log, and JSON for another host."""

import json
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.base.files import bounded, inert, plain
from lab.base.space import free_text
from lab.images.store import BaseImage
from lab.plan import Cell
from lab.record import CellResult, Status
from lab.report import table
from lab.report.terminal import STYLES, fewest_lines, styled, tables
from lab.run.journal import RUN_LOG
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
        step = table.step(text)
        with self._lock:
            if step and step != self._last.get(lane):
                self._line(f"{lane}: {step}")
            self._last[lane] = step

    def cell(self, result: CellResult) -> None:
        with self._lock:
            self._done += 1
            name = f"{result.guest} {result.variant} {result.build}"
            self._line(f"{self._done}/{self._total} {name}: {table.outcome(result)}")

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
        self._columns = table.columns((cell.variant.name, cell.build.name) for cell in cells)
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
            shown = next((each for each in larger if self._height(each) <= room), least)
        return Group(*shown, Text(), *lines, last)

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
        live_table = LiveTable(console, cells, kept)
        with live_table.live:
            yield live_table


# Longest line of the log, in characters.
LONGEST_LINE = 20_000


class RunLog(Silent):
    """An observer that logs all events to a file, and forwards them to `view`."""

    def __init__(self, folder: Path, view: Silent) -> None:
        self._folder = folder
        self._view = view
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}
        self._started = False
        self._ended = False

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._started:
            self._log(f"ended by {type(error).__name__}: {error}")

    def lane(self, lane: str, text: str) -> None:
        self._view.lane(lane, text)
        # Logging the progress within a step would give one line per chunk of an upload.
        step = table.step(text)
        if step != self._last.get(lane):
            self._last[lane] = step
            self._log(f"{lane}: {step or 'done'}")

    def cell(self, result: CellResult) -> None:
        self._view.cell(result)
        name = f"{result.guest} {result.variant} {result.build}"
        spent = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in result.seconds.items())
        self._log(f"{name}: {table.outcome(result)}" + (f" ({spent})" if spent else ""))
        for fault in result.retried:
            self._log(f"{name}: tried again after: {fault}")

    def note(self, text: str) -> None:
        self._view.note(text)
        self._log(f"note: {text}")

    def time_left(self, seconds: float | None) -> None:
        self._view.time_left(seconds)

    def image(self, image: BaseImage) -> None:
        self._view.image(image)

    def _log(self, text: str) -> None:
        """Write one line, even if the text has several. The log ends where it cannot be written."""
        line = bounded(" / ".join(filter(str.strip, plain(text).splitlines())), LONGEST_LINE)
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
        with self._lock:
            if self._ended:
                return
            try:
                self._write(f"{now}Z {line}\n")
            except OSError as error:
                self._ended = True
                self._view.note(
                    f"{self._folder / RUN_LOG} ends here: {error.strerror}; {free_text(self._folder)}"
                )

    def _write(self, line: str) -> None:
        # With the first line: a run that is refused must neither create the folder nor write to another's log.
        if not self._started:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._started = True
        with (self._folder / RUN_LOG).open("a", encoding="utf-8") as log:
            log.write(line)


class EventLines(Silent):
    """An observer that writes events.

    Their `kind` is `lane`, `note`, `prepared` (an image, and the folder that has it), or `refused` (why this
    host must not run the part).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def lane(self, lane: str, text: str) -> None:
        self.tell("lane", lane=lane, text=text)

    def cell(self, result: CellResult) -> None:
        # The lane that ended it: another one may have run its suite, on another host.
        text = f"decided {result.variant} {result.build}: {result.status}"
        self.tell("lane", lane=result.trials_lane or result.lane, text=text)

    def note(self, text: str) -> None:
        self.tell("note", text=text)

    def image(self, image: BaseImage) -> None:
        if image.manifest.base:
            self.tell("prepared", folder=str(image.folder), image=image.content.model_dump(mode="json"))

    def tell(self, kind: str, **more: Any) -> None:
        """Write one event."""
        if "text" in more:
            more["text"] = bounded(plain(more["text"]), LONGEST)
        with self._lock:
            self._stream.write(json.dumps({"kind": kind, **more}) + "\n")
            self._stream.flush()
