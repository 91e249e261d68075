"""The catalog: guests, variants, causes, sets, suites and cells."""

from collections.abc import Sequence

import click

from lab import builds, catalog, causes, plan
from lab.cli import common
from lab.record import ExperimentPolicy, RunOptions

UNCLEAR = ExperimentPolicy.UNCLEAR


@click.command("list")
@click.argument("what", type=click.Choice(["guests", "variants", "causes", "sets", "suites", "cells"]))
def list_command(what: str) -> int:
    """List the guests, variants, causes, sets, suites or cells that the lab knows."""
    known = catalog.load()
    match what:
        case "cells":
            print_cells(plan.choose(known).cells([builds.ANY]), RunOptions(remedies=True, experiments=UNCLEAR))
        case "causes":
            for name, cause in causes.known().items():
                common.say(f"{name}: {cause.explanation}")
        case "suites":
            common.say(f"{known.suite.name}: {known.suite.title}")
            common.print_rows([[f"  {name}", f"needs {needs}"] for name, needs in known.suite.tests.items()])
        case "guests":
            found = known.guests.items()
            common.print_rows([[name, guest.title, guest.image.origin] for name, guest in found])
        case _:
            common.print_rows([[name, item.title] for name, item in getattr(known, what).items()])
    return 0


def print_cells(cells: Sequence[plan.Cell], options: RunOptions) -> None:
    """Print cells, each with its expected status and the command that runs it alone with the same options."""
    several = len({cell.build for cell in cells}) > 1
    rows = [["guest", "variant", *(["build"] if several else []), "expected", "again"]]
    for cell in cells:
        expected = " ".join(filter(None, [cell.variant.expect.status, cell.variant.expect.cause]))
        build = [cell.build.name] if several else []
        rows.append([cell.guest.name, cell.variant.name, *build, expected, cell.rerun(options)])
    common.print_rows(rows)
