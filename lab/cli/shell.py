"""A shell in a guest."""

import subprocess

import click
from rich.markup import escape

from lab import builds, catalog, plan
from lab.cli import common
from lab.lane import shell


@click.command("shell")
@click.argument("guest")
@click.argument("variant", default="stock")
@click.option("--build", metavar="BUILD", help="As for matrix.")
@click.pass_obj
def shell_command(lab: common.Lab, guest: str, variant: str, build: str | None) -> int:
    """A shell in exactly the state that a cell's tests see. The guest goes when the shell ends."""
    known = catalog.load()
    cell = plan.Cell(known.guest(guest), known.variant(variant), builds.resolve(build))
    with common.console.status("starting") as status:
        opened = shell.ready(cell, lab.paths, lab.uri, lambda text: status.update(escape(text)))
        with opened as command:
            status.stop()
            return subprocess.run(command, check=False).returncode
