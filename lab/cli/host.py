"""Commands about this host: is it ready for the lab, and what did dead runs leave on it."""

from dataclasses import asdict

import click
from rich.markup import escape

from lab import catalog, plan
from lab.base.errors import LabError
from lab.cli import doctor, options, output
from lab.lane import shell
from lab.machine import leftovers
from lab.machine.connection import NoLibvirt

STUCK_HINT = (
    "  next: a program of the dead lab may still be ending, so run lab clean again in a minute; "
    "if that does not help, remove the folder as root"
)
# The states in which a requirement is shown with the guests that have it.
NAMING_GUESTS = (
    doctor.RequirementState.BROKEN,
    doctor.RequirementState.LIMITED,
    doctor.RequirementState.NOT_NEEDED,
)


@click.command("doctor")
@click.option(
    "--set",
    "set_name",
    metavar="SET|FILE",
    help="Check what the guests of this set need, or of the set in a TOML file. Default: all guests.",
)
@click.option(
    "-g",
    "guests",
    multiple=True,
    metavar="GUEST",
    help="Check what this guest needs, instead of those of the set; repeatable.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Try KVM again. Otherwise its verdict holds until the host's kernel, QEMU or /dev/kvm changes.",
)
@options.json_option
@click.pass_obj
def doctor_command(
    lab: options.Lab, set_name: str | None, guests: tuple[str, ...], again: bool, as_json: bool
) -> int:
    """Check whether this host can run the lab, and say what to do if not.

    The lab starts a machine whose processor stands still, to see whether libvirt and QEMU work.

    `not needed`: only other guests need it, or no guest does at present. `limited`: some of the guests cannot
    be run.

    Exit status: 0 if it can, 3 if something is broken.
    """
    definitions = catalog.load_catalog()
    choice = plan.choose_cells(definitions, set_name=set_name, guests=guests)
    everything = list(definitions.guests.values())
    lines = doctor.examine_host(doctor.Examination(lab.paths, choice.guests, everything, lab.uri, again))
    if as_json:
        checks = list(lines)
        broken = any(line.state is doctor.RequirementState.BROKEN for line in checks)
        output.print_json({"ready": not broken, "checks": [asdict(line) for line in checks]})
        return 3 if broken else 0
    broken = False
    for line in lines:
        broken |= line.state is doctor.RequirementState.BROKEN
        _show(line)
    return 3 if broken else 0


def _show(line: doctor.RequirementLine) -> None:
    styles = {
        doctor.RequirementState.OK: "green",
        doctor.RequirementState.BROKEN: "bold red",
        doctor.RequirementState.NOT_NEEDED: "dim",
    }
    state = f"[{styles.get(line.state, 'yellow')}]{line.state:11}[/]"
    output.get_console().print(f"{line.what:16}{state}{escape(line.found)}", soft_wrap=True)
    if line.state in NAMING_GUESTS and line.needed_by is not None:
        needed_by = (
            "needed by other guests:" if line.state is doctor.RequirementState.NOT_NEEDED else "needed by"
        )
        names = (
            f"{needed_by} {', '.join(line.needed_by)}" if line.needed_by else "needed by no guest at present"
        )
        output.get_console().print(f"{'':16}{names}", soft_wrap=True)
    if line.mend:
        first, *further_lines = line.mend.splitlines()
        output.get_console().print(f"{'':16}-> {escape(first)}", soft_wrap=True)
        for further_line in further_lines:
            output.get_console().print(f"{'':19}{escape(further_line)}", soft_wrap=True)


@click.command("clean")
@click.pass_obj
def clean_command(lab: options.Lab) -> int:
    """Remove what dead labs left behind: virtual machines, disks, temporary folders.

    Every command that starts or uses virtual machines does this first. This one also asks libvirt for
    machines with the lab's mark that the lab has no record of. Runs that are still going on and kept guests are
    left alone.

    Exit status: 0, or 3 if a folder could not be removed.
    """
    lanes, folders, stuck = lab.sweep()
    for lane in lanes:
        output.print_line(f"removed {lane}")
    for folder in folders:
        output.print_line(f"removed {folder.path} ({output.format_mib(folder.size)})")
    try:
        for name in leftovers.reap_unrecorded_machines(lab.uri):
            output.print_line(f"removed {name}, which had no record in the lab")
    except NoLibvirt as error:
        output.print_line(f"could not look for machines without a record: {error.args[0]}")
    if stuck:
        for reason in stuck:
            output.print_warning(f"lab: cannot remove {reason}")
        output.print_warning(STUCK_HINT)
        return LabError.exit_status
    # The lanes left belong to labs that are alive.
    alive = ", ".join(leftovers.list_lanes(lab.paths))
    output.print_line("nothing of a dead run is left" + (f"; alive: {alive}" if alive else ""))
    for kept_guest in shell.list_kept_guests(lab.paths):
        output.print_line(f"{kept_guest.name} is kept; its end: lab attach {kept_guest.name} --end")
    return 0
