"""What the commands share: folders, the libvirt URI, and how rows and results are printed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from lab.base.files import write_atomically
from lab.base.paths import STATES_GIB, Paths
from lab.cli.consoles import console
from lab.lane import upkeep
from lab.lane.upkeep import Unused
from lab.machine import leftovers
from lab.machine.connection import default_uri
from lab.record import RunResult
from lab.report import markdown, terminal

UNLIMITED = 100_000  # columns; wider than any row


@dataclass(frozen=True)
class Swept:
    """What dead labs left behind and a sweep removed: lanes by name, and folders.

    `stuck` names the folders that could not be removed, each with the reason.
    """

    lanes: list[str]
    folders: list[Unused]
    stuck: list[str]


class Lab:
    """The lab's folders and the libvirt to use; every command gets it."""

    def __init__(self, connect: str | None, states_gib: int = STATES_GIB) -> None:
        self.paths = replace(Paths.default(), states_gib=states_gib)
        self.uri = connect or default_uri()

    def sweep(self) -> Swept:
        """Remove what dead labs left behind. Raises LabError if libvirt does not remove a machine of theirs.

        Every command that starts, uses or counts machines calls this first. The others do not, so that they
        work where libvirt does not.
        """
        lanes = leftovers.reap(self.paths).lanes
        return Swept(lanes, *upkeep.sweep(self.paths))


def say(text: str) -> None:
    """Print a line as it is: a path may hold square brackets, and a message the code of an emoji."""
    console.print(text, soft_wrap=True, markup=False, emoji=False)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of plain text in aligned columns, one line for each row: no width limit cuts or folds it."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*map(Text, row))
    for line in console.render_lines(table, console.options.update(width=UNLIMITED), pad=False):
        say("".join(segment.text for segment in line).rstrip())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, in ASCII: no terminal and no locale changes it."""
    click.echo(json.dumps(document, indent=2))


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document; see docs/reference/json.md."
)


def mib(size: int) -> str:
    """Bytes, for people."""
    return f"{size / 2**20:.0f} MiB"


def gib(size: int) -> str:
    """Many bytes, for people."""
    return f"{size / 2**30:.1f} GiB"


def show_result(run: RunResult, folder: Path) -> None:
    """Print a run's summary, and write `matrix.md` into its folder."""
    try:
        write_atomically(folder / "matrix.md", markdown.render(run, folder))
    finally:
        terminal.summary(console, run, folder)
