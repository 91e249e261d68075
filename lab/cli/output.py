"""Where and how the lab prints."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from lab.base.files import plain

# In columns; wider than any row.
UNLIMITED = 100_000


# A pipe has no width of its own; this one keeps the rows of the matrix whole.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
errors = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a line as it is: a path may hold square brackets, and a message the code of an emoji."""
    console.print(text, soft_wrap=True, markup=False, emoji=False)


def warn(text: str) -> None:
    """Print a line to standard error as it is."""
    errors.print(plain(text), soft_wrap=True, markup=False, emoji=False)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of plain text in aligned columns, one line for each row: no width limit cuts or folds it."""
    from rich.table import Table  # `lab --version` needs none.

    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*map(Text, row))
    for line in console.render_lines(table, console.options.update(width=UNLIMITED), pad=False):
        say("".join(segment.text for segment in line).rstrip())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, in ASCII: no terminal and no locale changes it."""
    click.echo(json.dumps(document, indent=2))


def mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
