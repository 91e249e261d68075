"""Where and how the lab prints."""

import io
import json
import os
import sys
from collections.abc import Buffer, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from lab.base.files import clean_text

if TYPE_CHECKING:
    from rich.console import Console

# In columns; wider than any row.
UNLIMITED = 100_000


class Stream(io.BufferedWriter):
    """Standard output or standard error, whose reader decides nothing: what cannot be written is dropped.

    `problem` is the first error. That is so for whatever prints, in every thread.
    """

    problem: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self._drop(error)
            return memoryview(data).nbytes

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, problem: OSError) -> None:
        """Let what waits in the buffer, and all that comes, go nowhere."""
        self.problem = self.problem or problem
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()


def open_streams() -> Stream:
    """Make standard output and standard error outlive their readers; returns that of standard output."""
    # A file that the lab opens must not get the number of a stream that is closed. From this file nothing is
    # read, and a write to it fails, as it does on a closed stream; programs that the lab starts get it, too.
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    stdout, stderr = (Stream(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
    sys.stdout, sys.stderr = _text(stdout, sys.stdout), _text(stderr, sys.stderr)
    return stdout


def _text(stream: Stream, original: Any) -> io.TextIOWrapper:
    # Some programs share a stream that does not block with what they start; a slow reader is no problem.
    os.set_blocking(stream.fileno(), True)
    # A file may have a name that is no text.
    encoding = original.encoding if original else None
    return io.TextIOWrapper(stream, encoding, "backslashreplace", line_buffering=True)


# Rich takes as long to import as all that most short commands do, so it is imported where it is used.
@cache
def get_console() -> "Console":
    """Standard output with colours, tables and progress."""
    from rich.console import Console

    # A pipe has no width of its own; this one keeps the rows of the matrix whole.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


@cache
def get_error_console() -> "Console":
    """Standard error with progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_line(text: str) -> None:
    """Print a line as it is, before whatever is printed to standard error next."""
    print(text, flush=True)


def print_warning(text: str) -> None:
    """Print a line to standard error as it is."""
    print(clean_text(text), file=sys.stderr, flush=True)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of plain text in aligned columns, one line for each row: no width limit cuts or folds it."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*map(Text, row))
    wide = get_console().options.update(width=UNLIMITED)
    for line in get_console().render_lines(table, wide, pad=False):
        print_line("".join(segment.text for segment in line).rstrip())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, in ASCII: no terminal and no locale changes it."""
    click.echo(json.dumps(document, indent=2))


def format_mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def format_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
