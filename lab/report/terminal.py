"""The terminal: a run's summary."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.files import plain
from lab.report import table as squares
from lab.results import CellResult, RemedyOutcome, RunResult, Status

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


def summary(console: Console, run: RunResult) -> None:
    """The finished matrix, every cell that is not as expected with its reason, and where everything is."""
    table = Table(box=None, pad_edge=False)
    table.add_column("guest", no_wrap=True)
    table.add_column("kernel")
    for heading in squares.columns_of(run).values():
        table.add_column(heading, overflow="fold")
    for guest, cells in squares.rows(run).items():
        table.add_row(guest, Text(_short(squares.kernel(cells))), *[styled(cell) for cell in cells])
    console.print()
    console.print(table)
    for cell in run.cells:
        name = f"{cell.guest} {cell.variant} {cell.build}"
        if not cell.status.as_expected:
            console.print()
            console.print(Text(f"{name}: {squares.square(cell)}", STYLES[cell.status]))
            console.print(Text(f"  {plain(cell.reason)}\n  again: {cell.rerun}"), soft_wrap=True)
        _tried(console, cell, name)
        for number, fault in enumerate(cell.retried, 1):
            text = f"\n{name}: try {number} met a fault of the lab's own: {plain(fault)}"
            console.print(Text(text, "cyan"), soft_wrap=True)
    for lane in run.run.lanes:
        if lane.note:
            console.print(Text(f"\n{lane.guest}: {lane.note}", "cyan"))
    console.print()
    console.print(Text(squares.counts(run), "bold"))


def _tried(console: Console, cell: CellResult, name: str) -> None:
    """What was tried on a cell, with the command for what cures it."""
    experiment = squares.experiment(cell)
    if (experiment or cell.remedies) and cell.status.as_expected:
        console.print(Text(f"\n{name}: {squares.square(cell)}", STYLES[cell.status]))
    if experiment:
        console.print(Text(f"  by experiment: {plain(experiment)}"), soft_wrap=True)
    for tried in squares.remedies(cell):
        verified = tried.result is RemedyOutcome.VERIFIED
        said = f"price: {tried.price}" if verified else tried.reason
        line = f"  {tried.name}: {tried.result}: {' '.join(plain(said).split())}"
        console.print(Text(line, "green" if verified else "dim"), soft_wrap=True)
        if verified:
            console.print(Text(f"    {squares.how(tried)}"), soft_wrap=True)
        for defect in tried.defects:
            console.print(Text(f"    a defect of {tried.name}: {plain(defect)}", "bold red"), soft_wrap=True)


def styled(cell: CellResult | None) -> Text:
    """A square in its status's colour."""
    return Text(squares.square(cell), STYLES[cell.status] if cell else "")


def _short(kernel: str) -> str:
    """6.12.48+deb13-cloud-amd64 is 6.12: what people call a kernel by."""
    return ".".join(kernel.split(".")[:2])
