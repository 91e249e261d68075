"""What the catalog holds."""

from collections.abc import Sequence

import click
from rich.markup import escape
from rich.table import Table

from lab import builds, catalog, plan
from lab.cli import common
from lab.diagnosis import causes


@click.command("list")
@click.argument("what", type=click.Choice(["guests", "variants", "causes", "sets", "suites", "cells"]))
def list_command(what: str) -> int:
    """Show what the catalog holds."""
    known = catalog.load()
    table = Table(box=None, pad_edge=False, show_header=False)
    if what == "cells":
        print_cells(plan.choose(known).cells([builds.ANY]))
        return 0
    if what == "causes":
        for name, cause in causes.known().items():
            common.console.print(f"{name}: {escape(cause.explanation)}", soft_wrap=True)
        return 0
    if what == "suites":
        table.add_row(known.suite.name, known.suite.title)
        for name, needs in known.suite.tests.items():
            table.add_row("", f"{name} [dim](needs {needs})[/]")
    elif what == "guests":
        for name, guest in known.guests.items():
            table.add_row(name, escape(guest.title), escape(guest.image.origin))
    else:
        for name, item in getattr(known, what).items():
            table.add_row(name, escape(item.title))
    common.console.print(table, soft_wrap=True)
    return 0


def print_cells(cells: Sequence[plan.Cell]) -> None:
    """A table of cells, each with the command line that runs it alone."""
    table = Table("guest", "variant", "expected", "rerun", box=None, pad_edge=False)
    for cell in cells:
        guest, variant = cell.guest.name, cell.variant.name
        expected = " ".join(filter(None, [cell.variant.expect.status, cell.variant.expect.cause]))
        table.add_row(guest, variant, expected, f"lab matrix -g {guest} -v {variant}")
    common.console.print(table)
