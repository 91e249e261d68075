"""The support table as a web site."""

from pathlib import Path

import click

from lab.cli import common, completion
from lab.run import journal
from lab.site.publish import publish


@click.command("publish")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.runs)
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Put the site into this folder: a new or empty one, or that of an earlier `lab publish`, which is "
    "replaced as a whole.",
)
@click.option(
    "--host-names",
    is_flag=True,
    help="Name the hosts that ran the cells. Default: they are numbered, because the names may be private.",
)
@click.pass_obj
def publish_command(lab: common.Lab, runs: tuple[str, ...], folder: Path, *, host_names: bool) -> None:
    """Make a web site of the results of runs.

    RUN is the name or the folder of a run. The site shows the newest result of each cell over all runs. It is
    files only: it needs no server and no network, and opens from the folder as well.
    """
    found = [journal.find_folder(lab.paths.runs, run) for run in runs]
    index = publish(found, folder, host_names=host_names)
    common.say(f"site: {index}")
