"""The terminal: a run's summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.files import plain
from lab.record import CellResult, Outcome, RemedyOutcome, RunResult, Status
from lab.report import squares

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
FILES = ("results.json", "matrix.md", "cells/", "run.log")
# Between two columns.
GAP = 2
# Of what a test says.
LONGEST = 300


def summary(console: Console, run: RunResult, folder: Path) -> None:
    """The matrix, every cell that is not as expected and why, what was tried, and where everything is."""
    rows = {
        guest: [Text(_short(squares.kernel(cells))), *[styled(cell) for cell in cells]]
        for guest, cells in squares.rows(run).items()
    }
    for table in tables(["kernel", *squares.columns_of(run).values()], rows, console.width):
        console.print()
        console.print(table)
    if lines := squares.left_out(run):
        console.print()
        for line in lines:
            _print(console, line, "dim")
    for cell in run.cells:
        name = f"{cell.guest} {cell.variant} {cell.build}"
        if _is_told(cell):
            _cell(console, cell, name, folder)
        for number, fault in enumerate(cell.retried, 1):
            _print(console, f"\n{name}: try {number} met a fault of the lab's own: {plain(fault)}", "cyan")
    for lane in run.run.lanes:
        if lane.note:
            _print(console, f"\n{lane.guest}: {lane.note}", "cyan")
    console.print()
    console.print(Text(squares.counts(run), "bold"))
    there = [name for name in FILES if (folder / name).exists()]
    _print(console, f"run: {folder}" + (f" ({', '.join(there)})" if there else ""))
    if line := squares.to_go_on(run, folder):
        _print(console, line)


def _is_told(cell: CellResult) -> bool:
    unexpected = not cell.status.as_expected and cell.status is not Status.NOT_RUN
    return unexpected or bool(cell.remedies or cell.experiment)


def _cell(console: Console, cell: CellResult, name: str, folder: Path) -> None:
    """Why a cell is what it is, what was tried on it, with the command for what cures it, and the evidence."""
    _print(console, f"\n{name}: {squares.square(cell)}", STYLES[cell.status])
    if cell.reason:
        sure = f" ({cell.confidence})" if cell.confidence else ""
        _print(console, f"  {plain(cell.reason)}{sure}")
    if not cell.status.as_expected:
        for test in cell.tests:
            if test.outcome is not Outcome.PASS:
                said = f": {_line(test.message)}" if test.message else ""
                _print(console, f"  {plain(test.name)}: {test.outcome}{said}")
        _print(console, f"  again: {cell.rerun}")
    if experiment := squares.experiment(cell):
        _print(console, f"  by experiment: {plain(experiment)}")
    for tried in squares.remedies(cell):
        verified = tried.result is RemedyOutcome.VERIFIED
        said = f": {_line(tried.reason)}" if tried.reason else ""
        _print(console, f"  {tried.name}: {tried.result}{said}", "green" if verified else "dim")
        if verified or tried.result is RemedyOutcome.AVOIDS:
            _print(console, f"    price: {tried.price}\n    {squares.how(tried)}")
        for defect in tried.defects:
            _print(console, f"    a defect of {tried.name}: {plain(defect)}", "bold red")
    if cell.evidence:
        _print(console, f"  evidence: {folder / cell.folder}")


def tables(headings: Sequence[str], rows: Mapping[str, Sequence[Text]], width: int) -> list[Table]:
    """A row for each guest, in as many tables as it takes to break no word."""
    columns = [[Text(head), *(row[n] for row in rows.values())] for n, head in enumerate(headings)]
    first = max(cell_len(name) for name in ("guest", *rows))
    narrow = [max(_longest_word(text) for text in column) for column in columns]
    whole = [max(cell_len(text.plain) for text in column) for column in columns]
    parts: list[list[int]] = []
    room = 0
    for number, least in enumerate(narrow):
        if not parts or room < GAP + least:
            parts.append([])
            room = width - first
        parts[-1].append(number)
        room -= GAP + least
    made = []
    for part in parts:
        table = Table("guest", box=None, pad_edge=False)
        spare = width - first - sum(GAP + narrow[number] for number in part)
        for number in part:
            more = max(0, min(spare, whole[number] - narrow[number]))
            spare -= more
            table.add_column(headings[number], width=narrow[number] + more, overflow="fold")
        for guest, row in rows.items():
            table.add_row(guest, *[row[number] for number in part])
        made.append(table)
    return made


def styled(cell: CellResult | None) -> Text:
    """A square in its status's colour."""
    return Text(squares.square(cell), STYLES[cell.status] if cell else "")


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split()), default=1)


def _print(console: Console, text: str, style: str = "") -> None:
    """Text as it is: no markup, and its lines are the terminal's to wrap, so that they can be copied."""
    console.print(Text(text, style), soft_wrap=True)


def _line(text: str) -> str:
    shown = " ".join(plain(text).split())
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def _short(kernel: str) -> str:
    """6.12.48+deb13-cloud-amd64 is 6.12: what people call a kernel by."""
    return ".".join(kernel.split(".")[:2])
