"""What the commands share: where they print, where things are, how a run is named."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from lab.base.errors import UsageError, unknown_name
from lab.base.paths import Paths
from lab.machine.connection import default_uri

INTERRUPTED = 130  # what shells say of a program that SIGINT ended

# A pipe has no width: tables keep their lines whole there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
errors = Console(stderr=True, highlight=False)


class Lab:
    """What every command needs."""

    def __init__(self, connect: str | None) -> None:
        self.paths = Paths.default()
        self.uri = connect or default_uri()


def say(text: str) -> None:
    """A line as it is: paths may hold what looks like markup."""
    console.print(text, soft_wrap=True, markup=False)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Rows of plain words in columns. No line is cut or folded: a terminal wraps it, a pipe gets it whole."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(set_cell_size(text, width) for text, width in zip(row, widths, strict=True)).rstrip())


def run_folder(paths: Paths, run: str) -> Path:
    """A run by the path of its folder, or by its name in the lab's own place."""
    # A name, and no path such as "." or "/tmp/run".
    if Path(run).name == run and run not in ("", "..") and (paths.runs / run).is_dir():
        return paths.runs / run
    if run and Path(run).is_dir():
        return Path(run)
    known = [folder.name for folder in paths.runs.glob("*")] if paths.runs.is_dir() else []
    raise unknown_name("run", run, known) if known else UsageError(f"no run {run!r}: there are none yet")
