"""A run in progress, in two forms: a table that a terminal redraws, and lines for pipes, CI and `run.log`."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.base.activity import Progress
from lab.base.files import clean_text, cut_text, escape_commands, format_free_space
from lab.plan import Cell
from lab.record import CellResult, Prediction
from lab.record.folders import RUN_LOG
from lab.report import table
from lab.report.terminal_tables import count_fewest_lines, lay_out_tables, style_square
from lab.run.observer import JoinedObserver, Observer

# Longest line, and longest text of an event in the table, in characters.
LONGEST_LINE, LONGEST = 20_000, 4000
# The lines of the screen that lanes leave to the table and to the line below them.
LEAST_TABLE = 7


@contextmanager
def open_view(
    console: Console,
    cells: Sequence[Cell],
    earlier_results: Collection[CellResult],
    *,
    quiet: bool,
    verbose: bool,
) -> Iterator[Observer]:
    if quiet:
        yield Observer()
    elif verbose or not console.is_terminal:
        # A live table would fill a pipe with copies of itself.
        start = time.monotonic()

        def write(line: str) -> None:
            console.print(Text(f"[{time.monotonic() - start:5.0f} s] {escape_commands(line)}"), soft_wrap=True)

        yield Lines(write, len(cells), len(earlier_results))
    else:
        live_table = LiveTable(console, cells, earlier_results)
        with live_table.live:
            yield live_table


class Lines(Observer):
    """Gives `write` one line for each step of a lane, each decided cell and each note.

    Decided cells are counted if `total` says how many cells the run has; `earlier_count` of them were decided
    before.
    """

    def __init__(self, write: Callable[[str], None], total: int = 0, earlier_count: int = 0) -> None:
        self._write = write
        self._total, self._count = total, earlier_count
        self._last: dict[str, str] = {}
        self._lock = threading.RLock()

    def lane(self, lane: str, progress: Progress | None) -> None:
        step = progress.name if progress else ""
        with self._lock:
            if step != self._last.get(lane):
                self._last[lane] = step
                self.line(f"{lane}: {step or 'done'}")

    def prediction(self, cell: Cell, prediction: Prediction) -> None:
        name = f"{cell.guest.name} {cell.variant.name} {cell.build.name}"
        self.line(f"{name}: {prediction} (the probes alone; its suite has not run)")

    def cell(self, result: CellResult) -> None:
        name = table.name_cell(result)
        spent = {} if result.history.kept else result.suite.seconds
        seconds = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in spent.items())
        with self._lock:
            self._count += 1
            count = f"{self._count}/{self._total} " if self._total else ""
            self.line(f"{count}{name}: {table.format_cell(result)}" + (f" ({seconds})" if seconds else ""))
            for fault in result.history.retried:
                self.line(f"{name}: tried again after: {fault}")

    def note(self, text: str) -> None:
        self.line(f"note: {text}")

    def line(self, text: str) -> None:
        """Write one line, even if the text has several."""
        with self._lock:
            self._write(cut_text(" / ".join(filter(str.strip, clean_text(text).splitlines())), LONGEST_LINE))


@contextmanager
def open_log(folder: Path, view: Observer) -> Iterator[Observer]:
    """Yield an observer that tells `view` everything and adds lines to `run.log`, each with its time.

    The log begins with its first line: a run that is refused must neither create the folder nor write to
    another's log. It ends where it cannot be written.
    """
    file = folder / RUN_LOG
    has_begun = has_ended = False

    def add(line: str) -> None:
        nonlocal has_begun, has_ended
        if has_ended:
            return
        time_stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
        try:
            if not has_begun:
                folder.mkdir(parents=True, exist_ok=True)
                has_begun = True
            with file.open("a", encoding="utf-8") as log:
                log.write(f"{time_stamp}Z {line}\n")
        except OSError as error:
            has_ended = True
            view.note(f"{file} ends here: {error.strerror}; {format_free_space(folder)}")

    lines = Lines(add)
    try:
        yield JoinedObserver(view, lines)
    except BaseException as error:
        if has_begun:
            lines.line(f"ended by {type(error).__name__}: {error}")
        raise


class LiveTable(Observer):
    """Shows the table, each lane's step and number of finished cells, the counts by status, and the time left.

    A table that does not fit the screen is left out.
    """

    def __init__(
        self, console: Console, cells: Sequence[Cell], earlier_results: Collection[CellResult]
    ) -> None:
        self._console = console
        self._columns = table.label_columns((cell.variant.name, cell.build.name) for cell in cells)
        self._guests = list(dict.fromkeys(cell.guest.name for cell in cells))
        self._planned = {(cell.guest.name, cell.variant.name, cell.build.name) for cell in cells}
        self._total = len(cells)
        self._results = {(cell.guest, cell.variant, cell.build): cell for cell in earlier_results}
        self._predictions: dict[tuple[str, str, str], Prediction] = {}
        self._doing: dict[str, str] = {}
        self._served: Counter[str] = Counter()
        self._end: float | None = None
        self._start = time.monotonic()
        self._lock = threading.RLock()
        self.live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def lane(self, lane: str, progress: Progress | None) -> None:
        with self._lock:
            self._doing[lane] = clean_text(cut_text(progress.text, LONGEST)) if progress else ""

    def prediction(self, cell: Cell, prediction: Prediction) -> None:
        with self._lock:
            self._predictions[cell.guest.name, cell.variant.name, cell.build.name] = prediction

    def cell(self, result: CellResult) -> None:
        with self._lock:
            self._results[result.guest, result.variant, result.build] = result
            self._served[result.history.lane] += 1

    def note(self, text: str) -> None:
        self._console.print(Text(f"note: {clean_text(cut_text(text, LONGEST))}", "cyan"))

    def time_left(self, seconds: float | None) -> None:
        with self._lock:
            self._end = None if seconds is None else time.monotonic() + seconds

    def _render(self) -> Group:
        with self._lock:
            lanes = {lane: f"{text} ({self._served[lane]} done)" for lane, text in self._doing.items() if text}
            clock_time = time.monotonic()
            statuses = table.count_statuses(self._results.values())
            count = f"{len(self._results)} of {self._total} cells" + (f" ({statuses})" if statuses else "")
            parts = [count, _clock(clock_time - self._start)]
            if lanes:
                seconds_left = self._end and self._end - clock_time
                # An estimate that has run out says nothing about the rest.
                parts.append(
                    f"about {_clock(seconds_left)} left"
                    if seconds_left and seconds_left > 0
                    else "time left unknown"
                )
            last = Text(", ".join(parts), "bold")
            lines = [Text(f"{lane}: {text}", "dim") for lane, text in lanes.items()]
            most = max(1, self._console.height - LEAST_TABLE)
            if len(lines) > most:
                lines[most - 1 :] = [Text(f"and {len(lines) - most + 1} more lanes", "dim")]
            squares = self._tables()
            height = sum(len(self._console.render_lines(part, pad=False)) for part in squares)
            fits = height + len(lines) + 2 <= self._console.height
        return Group(*(squares if fits else []), Text(), *lines, last)

    def _tables(self) -> list[Table]:
        """The table of squares. None if it cannot fit: to make 3,000 squares takes its time."""
        headings, height, width = list(self._columns.values()), self._console.height, self._console.width
        if count_fewest_lines(headings, len(self._guests), width) >= height:
            return []
        rows = {guest: [self._square((guest, *column)) for column in self._columns] for guest in self._guests}
        return lay_out_tables(headings, rows, width)

    def _square(self, key: tuple[str, str, str]) -> Text:
        decided = self._results.get(key)
        if decided is None and key in self._predictions:
            return Text(str(self._predictions[key]), "dim italic")
        return Text("·", "dim") if decided is None and key in self._planned else style_square(decided)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
