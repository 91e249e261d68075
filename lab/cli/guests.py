"""Shells and commands in guests in the state of a cell; guests that are kept, and copies to and from them."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from lab import builds, catalog, plan
from lab.base.activity import Progress, Task
from lab.base.errors import UsageError
from lab.base.files import clean_text
from lab.cli import options, output
from lab.guest.transfer import Sftp
from lab.lane import shell
from lab.lane.shell import SUITE_USER, EnteredGuest, KeptGuest, LoginName
from lab.record import RunResult
from lab.record.folders import VARIANTS, find_folder
from lab.run import past

# ssh gives this status for its own faults; a command may give it, too.
SSH_FAILED = 255
# Where click keeps the words behind `--`.
WORDS = "lab.command"

USER = click.option(
    "--user",
    type=click.Choice(["tester", "root"]),
    default=SUITE_USER,
    show_default=True,
    help="tester: as the tests run. root: look around as the administrator, without the profile, container or "
    "service in which the variant runs the tests.",
)


def in_a_cell[T: Callable[..., Any]](command: T) -> T:
    """Add the arguments and options that say which cell, as whom, and whether the guest is kept."""
    for add in (
        click.option(
            "--keep", is_flag=True, help="Let the guest live on afterwards; see `lab attach` and `lab copy`."
        ),
        USER,
        click.option(
            "--run",
            metavar="RUN",
            help="Take a cell of this run, with its build and root file system: name GUEST/VARIANT, or "
            "GUEST/VARIANT/BUILD, instead of GUEST and VARIANT. If the lab runs programs of this host for "
            "the build, also name the build with --build.",
        ),
        options.add_build_option(f"Deploy this {builds.describe_forms()}. Default: the newest release."),
        click.argument("variant", metavar="[VARIANT]", required=False),
        click.argument("guest", metavar="GUEST"),
    ):
        command = add(command)
    return command


class WithCommand(click.Command):
    """A command that runs the words behind `--` in a guest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words behind the first `--` away: they are not the lab's to read."""
        if "--" in args:
            where = args.index("--")
            ctx.meta[WORDS], args = args[where + 1 :], args[:where]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND..."]


@click.command("shell")
@in_a_cell
@click.pass_obj
def shell_command(lab: options.Lab, /, *, user: LoginName, keep: bool, **cell_options: Any) -> int:
    """Open a shell in a guest, in the state that the tests of a cell see.

    VARIANT is stock if not given. The first shell with a build deploys and stores it; later ones start in
    seconds. The guest is removed when the shell ends, and the exit status is the shell's. Without a terminal
    the shell reads its commands from standard input.
    """
    with _guest(lab, keep=keep, **cell_options) as (guest, about):
        return open_shell(guest, user, about)


@click.command("exec", cls=WithCommand)
@in_a_cell
@click.pass_context
def exec_command(context: click.Context, /, *, user: LoginName, keep: bool, **cell_options: Any) -> int:
    """Run one command in a guest, in the state that the tests of a cell see.

    VARIANT is stock if not given. COMMAND is a program with its arguments; for pipes and variables use a
    shell: -- sh -c '...'. Standard output and standard error stay apart, and the command gets the standard
    input unless that is a terminal.

    Exit status: the command's, or 128 + N if signal N ended it. If the lab itself fails, it is 3 (2 for wrong
    usage), and standard error has a line that begins with "lab:".
    """
    words = context.meta.get(WORDS)
    if not words:
        raise UsageError("no command to run", hint="name it after --: lab exec GUEST [VARIANT] -- COMMAND")
    with _guest(context.obj, keep=keep, **cell_options) as (guest, _):
        return run(guest, guest.entrance.command(words, user=user, stdin=not sys.stdin.isatty()))


def open_shell(guest: EnteredGuest | KeptGuest, user: LoginName, about: str = "") -> int:
    """Open a shell in a guest and give its exit status; on a terminal, say first how to run the suite there."""
    terminal = sys.stdin.isatty()
    if terminal:
        entrance = guest.entrance
        say = [about] if about else []
        if user == SUITE_USER:
            say += [f"the suite, as a cell runs it (arrow up in the shell):\n  {entrance.suite}"]
            say += [f"one test of it:\n  {entrance.one_test}"]
        else:
            say += ["as root, not confined as the tests are"]
        if (rate := entrance.speed.clock) < 1:
            slower = f"{1 / rate:.0f}"
            say += [f"time in the guest runs {slower} times slower than here: `sleep 1` takes {slower} s"]
        output.print_line("\n".join(say))
    return run(guest, guest.entrance.shell(user=user, terminal=terminal))


def run(guest: EnteredGuest | KeptGuest, command: list[str]) -> int:
    """Run ssh and give its exit status. Raises LabError if the guest died meanwhile."""
    status = subprocess.run(command, check=False).returncode
    if status == SSH_FAILED:
        guest.check_alive()
    return status


@contextmanager
def _guest(
    lab: options.Lab, *, guest: str, variant: str | None, build: str | None, run: str | None, keep: bool
) -> Iterator[tuple[EnteredGuest | KeptGuest, str]]:
    """A guest in the state of a cell, and what a recorded cell did in its run.

    The guest is removed after the block, or kept from then on.
    """
    definitions = catalog.load_catalog()
    own_rootfs: Path | None = None
    about = ""
    if run is None:
        cell = plan.Cell(
            definitions.guest(guest), definitions.variant(variant or "stock"), builds.resolve_build(build)
        )
    else:
        if variant is not None:
            hint = f"for example: --run {run} {guest}/{variant}"
            raise UsageError("--run takes the variant from the run", hint=hint)
        folder = find_folder(lab.paths.runs, run)
        # A variant may have been made for that run alone.
        definitions = definitions.with_variants(folder / VARIANTS)
        again = shlex.join(["lab", str(click.get_current_context().info_name), "--run", run, guest])
        arguments = [build] if build is not None else []
        recorded = past.find_cell(RunResult.read(folder), guest, definitions, lab.paths, arguments, again)
        for warning in recorded.warnings:
            output.print_warning(f"lab: warning: {warning}")
        cell, own_rootfs = recorded.cell, recorded.own_rootfs
        cause = f" ({recorded.result.cause})" if recorded.result.cause else ""
        about = f"{cell.name} was {recorded.result.status}{cause} in that run"
    lab.sweep()
    if keep:
        # The keeper is made of this process while it has one thread: the status line has another.
        starting = shell.start_keeper(cell, lab.paths, lab.uri, own_rootfs=own_rootfs)
        with output.get_error_console().status("starting") as status:
            kept_guest = starting.wait(lambda progress: status.update(escape(progress.text)))
        try:
            yield kept_guest, about
        finally:
            name = kept_guest.name
            output.print_warning(
                f"kept: {name}; a shell in it: lab attach {name}; its end: lab attach {name} --end"
            )
        return
    # Standard output is the command's.
    with output.get_error_console().status("starting") as status:

        def show(progress: Progress) -> None:
            status.update(escape(progress.text))

        with shell.enter_guest(cell, lab.paths, lab.uri, Task(show), own_rootfs=own_rootfs) as entered_guest:
            status.stop()
            yield entered_guest, about


# NAME:PATH. A path of this host with a colon in it has a slash before that: ./a:b.
IN_GUEST = re.compile(r"(?P<name>[^/:]+):(?P<path>.*)", re.DOTALL)


@click.command("attach")
@click.argument("name", required=False)
@USER
@click.option("--list", "only_list", is_flag=True, help="List the guests that are kept.")
@click.option("--end", is_flag=True, help="Remove the guest instead.")
@click.pass_obj
def attach_command(lab: options.Lab, name: str | None, user: LoginName, only_list: bool, end: bool) -> int:
    """Open a shell in a guest that was kept with --keep, or end the guest.

    NAME may be left out if one guest is kept. A kept guest lives until you end it, its machine dies, or this
    host or libvirt stops. The exit status is the shell's.
    """
    lab.sweep()
    if only_list:
        if name or end:
            raise UsageError("--list goes with nothing else", hint="lab attach --list")
        rows = [["name", "cell", "for", "keeper"]]
        for kept_guest in shell.list_kept_guests(lab.paths):
            minutes = (datetime.now(UTC) - kept_guest.since).total_seconds() / 60
            rows.append(
                [kept_guest.name, kept_guest.cell, f"{minutes:.0f} min", f"process {kept_guest.keeper}"]
            )
        if len(rows) > 1:
            output.print_rows(rows)
        else:
            output.print_line("no guest is kept; keep one: lab shell GUEST [VARIANT] --keep")
        return 0
    kept_guest = shell.find_kept_guest(lab.paths, name)
    if end:
        shell.end_kept_guest(kept_guest)
        output.print_line(f"ended {kept_guest.name}; nothing of it is left")
        return 0
    return open_shell(kept_guest, user)


@click.command("copy")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@USER
@click.pass_obj
def copy_command(lab: options.Lab, source: str, target: str, user: LoginName) -> int:
    """Copy a file or a folder into a kept guest, or out of it.

    One of SRC and DST is NAME:PATH of a kept guest (see `lab attach --list`), the other a path of this host. A
    path in the guest that is not absolute begins at the user's home. If DST is a folder, the copy is put into
    it. Links and special files are left out.
    """
    lab.sweep()
    in_guest = [IN_GUEST.fullmatch(path) for path in (source, target)]
    match = next(filter(None, in_guest), None)
    if match is None or all(in_guest):
        raise UsageError(
            "one of SRC and DST is a path of this host, the other NAME:PATH of a kept guest",
            hint="for example: lab copy NAME:/tmp/log . (lab attach --list has the names)",
        )
    kept_guest, remote = shell.find_kept_guest(lab.paths, match["name"]), match["path"] or "."
    sftp = Sftp(kept_guest.entrance.sftp(user), kept_guest.check_alive)
    with output.get_error_console().status("copying"):
        if in_guest[1]:
            where, left_out = target, sftp.upload(Path(source), remote)
        else:
            copied, left_out = sftp.download(remote, Path(target))
            where = str(copied)
    less = f"; links and special files left out: {left_out}" if left_out else ""
    output.print_line(clean_text(f"copied to {where}{less}"))
    return 0
