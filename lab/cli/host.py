"""Commands about this host: whether it is ready, and what dead runs left on it."""

from dataclasses import asdict

import click
from rich.markup import escape

from lab.base.errors import LabError
from lab.base.files import plain
from lab.cli import common
from lab.host import doctor
from lab.lane import keeper
from lab.machine import leftovers

STUCK_HINT = (
    "  next: a program of the dead lab may still be ending, so run lab clean again in a minute; "
    "if that does not help, remove the folder as root"
)


@click.command("doctor")
@common.json_option
@click.pass_obj
def doctor_command(lab: common.Lab, as_json: bool) -> int:
    """Check whether this host can run the lab, and say what to do if not.

    Exit status: 0 if it can, 3 if something is broken.
    """
    if as_json:
        lines = list(doctor.examine(lab.paths, lab.uri))
        broken = any(line.state is doctor.State.BROKEN for line in lines)
        common.print_json({"ready": not broken, "checks": [asdict(line) for line in lines]})
        return 3 if broken else 0
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
    """Remove what dead labs left behind: virtual machines, disks, network processes, temporary folders.

    Every command that starts or uses virtual machines does this first. Runs that are still going on and kept
    guests are left alone.

    Exit status: 0, or 3 if a folder could not be removed.
    """
    swept = lab.sweep()
    for lane in swept.lanes:
        common.say(f"removed {lane}")
    for folder in swept.folders:
        common.say(f"removed {folder.path} ({common.mib(folder.size)})")
    if swept.stuck:
        for reason in swept.stuck:
            common.errors.print(f"lab: cannot remove {escape(plain(reason))}", soft_wrap=True)
        common.errors.print(STUCK_HINT, soft_wrap=True)
        return LabError.exit_status
    # The lanes left belong to labs that are alive.
    alive = ", ".join(leftovers.lanes(lab.paths))
    common.say("nothing of a dead run is left" + (f"; alive: {alive}" if alive else ""))
    for kept in keeper.all_kept(lab.paths):
        common.say(f"{kept.name} is kept; its end: lab attach {kept.name} --end")
    return 0
