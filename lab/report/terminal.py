"""The terminal: a live table while the matrix runs, and the summary at its end."""

import threading
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.files import plain
from lab.plan import Cell
from lab.report import table as squares
from lab.results import CellResult, RunResult, Status

STYLES = {
    Status.PASS: "green",
    Status.XFAIL: "yellow",
    Status.NOT_APPLICABLE: "dim",
    Status.NOT_RUN: "magenta",
    Status.ERROR: "bold magenta",
    Status.FAIL: "bold red",
    Status.XPASS: "bold red",
    Status.FLAKY: "bold red",
}


class LiveTable:
    """Shows a run as it goes: a table that fills in on a terminal, a line for each event elsewhere."""

    def __init__(self, console: Console, cells: Sequence[Cell]) -> None:
        self._console = console
        self._guests = list(dict.fromkeys(cell.guest.name for cell in cells))
        self._variants = list(dict.fromkeys(cell.variant.name for cell in cells))
        self._done: dict[tuple[str, str], CellResult] = {}
        self._doing: dict[str, str] = {}
        self._total = len(cells)
        self._start = time.monotonic()
        self._lock = threading.RLock()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def __enter__(self) -> "LiveTable":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def lane(self, guest: str, text: str) -> None:
        text = plain(text)
        with self._lock:
            before = self._doing.get(guest, "")
            self._doing[guest] = text
        # On a pipe, progress within a step would be a line for every piece of an upload.
        if not self._console.is_terminal and text and _step(text) != _step(before):
            self._line(f"{guest}: {_step(text)}")

    def cell(self, result: CellResult) -> None:
        with self._lock:
            self._done[result.guest, result.variant] = result
        if not self._console.is_terminal:
            self._line(f"{result.guest} {result.variant}: {squares.square(result)}")

    def note(self, text: str) -> None:
        self._console.print(Text(f"note: {text}", "cyan"))

    def _line(self, text: str) -> None:
        spent = time.monotonic() - self._start
        self._console.print(Text(f"[{spent:5.0f} s] {text}"), soft_wrap=True)

    def _render(self) -> Group:
        with self._lock:
            table = Table(box=None, pad_edge=False)
            table.add_column("guest")
            for name in self._variants:
                table.add_column(name, overflow="fold")
            for guest in self._guests:
                found = [self._done.get((guest, variant)) for variant in self._variants]
                table.add_row(guest, *[_styled(cell) if cell else Text("·", "dim") for cell in found])
            spent = time.monotonic() - self._start
            lines = [Text(f"{guest}: {text}", "dim") for guest, text in self._doing.items() if text]
            summary = Text(f"{len(self._done)} of {self._total} cells, {spent:.0f} s", "bold")
        return Group(table, Text(), *lines, summary)


def summary(console: Console, run: RunResult) -> None:
    """The finished matrix, every cell that is not as expected with its reason, and where everything is."""
    table = Table(box=None, pad_edge=False)
    table.add_column("guest")
    table.add_column("kernel")
    for name in squares.columns(run):
        table.add_column(name, overflow="fold")
    for guest, cells in squares.rows(run).items():
        table.add_row(guest, _short(squares.kernel(cells)), *[_styled(cell) for cell in cells])
    console.print()
    console.print(table)
    for cell in run.cells:
        if not cell.status.as_expected:
            console.print()
            console.print(Text(f"{cell.guest} {cell.variant}: {squares.square(cell)}", STYLES[cell.status]))
            console.print(Text(f"  {cell.reason}\n  again: {cell.rerun}"), soft_wrap=True)
    for lane in run.run.lanes:
        if lane.note:
            console.print(Text(f"\n{lane.guest}: {lane.note}", "cyan"))
    console.print()
    console.print(Text(squares.counts(run), "bold"))


def _styled(cell: CellResult) -> Text:
    return Text(squares.square(cell), STYLES[cell.status])


def _short(kernel: str) -> str:
    """6.12.48+deb13-cloud-amd64 is 6.12: what people call a kernel by."""
    return ".".join(kernel.split(".")[:2])


def _step(text: str) -> str:
    return text.split(":")[0] if text.startswith("deploying") else text
