"""A shell in a guest, in the state that tests see."""

import subprocess

import click
from rich.markup import escape

from lab import builds, catalog, plan
from lab.cli import common, completion
from lab.lane import shell


@click.command("shell")
@click.argument("guest", shell_complete=completion.guests)
@click.argument("variant", default="stock", shell_complete=completion.variants)
@click.option(
    "--build",
    metavar="BUILD",
    shell_complete=completion.builds,
    help=f"Deploy this {builds.forms()}. Default: the newest release.",
)
@click.pass_obj
def shell_command(lab: common.Lab, guest: str, variant: str, build: str | None) -> int:
    """Open a shell in a guest, in the state that the tests of a cell see.

    VARIANT is stock if not given. The guest is removed when the shell ends, and the exit status is the shell's.
    """
    known = catalog.load()
    cell = plan.Cell(known.guest(guest), known.variant(variant), builds.resolve(build))
    with common.console.status("starting") as status:
        opened = shell.ready(cell, lab.paths, lab.uri, lambda text: status.update(escape(text)))
        with opened as command:
            status.stop()
            return subprocess.run(command, check=False).returncode
