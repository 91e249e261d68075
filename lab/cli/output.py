"""Where and how the lab prints."""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from lab.base.files import plain

if TYPE_CHECKING:
    from rich.console import Console

# In columns; wider than any row.
UNLIMITED = 100_000


# Rich takes as long to import as all that most short commands do, so it is imported where it is used.
@cache
def console() -> "Console":
    """Standard output with colours, tables and progress."""
    from rich.console import Console

    # A pipe has no width of its own; this one keeps the rows of the matrix whole.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


@cache
def errors() -> "Console":
    """Standard error with progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a line as it is, before whatever is printed to standard error next."""
    print(text, flush=True)


def warn(text: str) -> None:
    """Print a line to standard error as it is."""
    print(plain(text), file=sys.stderr, flush=True)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of plain text in aligned columns, one line for each row: no width limit cuts or folds it."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*map(Text, row))
    wide = console().options.update(width=UNLIMITED)
    for line in console().render_lines(table, wide, pad=False):
        say("".join(segment.text for segment in line).rstrip())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, in ASCII: no terminal and no locale changes it."""
    click.echo(json.dumps(document, indent=2))


def mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
