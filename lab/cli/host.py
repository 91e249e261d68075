"""Commands about this host: is it ready, and what have labs left on it."""

import click
from rich.markup import escape

from lab.cli import common
from lab.host import doctor


@click.command("doctor")
@click.pass_obj
def doctor_command(lab: common.Lab) -> int:
    """Is this host ready? Each line: what, state, how to mend it."""
    broken = False
    styles = {doctor.State.OK: "green", doctor.State.BROKEN: "bold red"}
    for line in doctor.examine(lab.paths, lab.uri):
        broken |= line.state is doctor.State.BROKEN
        style = styles.get(line.state, "yellow")
        state = f"[{style}]{line.state:10}[/]"
        common.console.print(f"{line.what:16}{state}{escape(line.found)}", soft_wrap=True)
        if line.mend:
            common.console.print(f"{'':16}-> {escape(line.mend)}", soft_wrap=True)
    return 3 if broken else 0


@click.command("clean")
@click.pass_obj
def clean_command(lab: common.Lab) -> int:
    """Remove every domain, overlay, port lock and passt process of dead runs, and nothing else."""
    # `cli` has done it already: what is left belongs to labs that are alive.
    alive = sorted(folder.name for folder in lab.paths.lanes.glob("lab-*"))
    common.console.print("nothing of a dead run is left" + (f"; alive: {', '.join(alive)}" if alive else ""))
    return 0
