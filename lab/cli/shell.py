"""A shell, or one command, in a guest that is in the state of a cell."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.markup import escape

from lab import builds, catalog, plan
from lab.base.errors import UsageError
from lab.cli import common, completion
from lab.lane import shell
from lab.lane.entrance import SUITE_USER, Entrance, Who
from lab.lane.shell import Opened
from lab.plan import Cell

# ssh gives this status for its own faults; a command may give it, too.
SSH_FAILED = 255
# Where a command line keeps the words behind its `--`.
WORDS = "lab.command"

build_option = click.option(
    "--build",
    metavar="BUILD",
    shell_complete=completion.builds,
    help=f"Deploy this {builds.forms()}. Default: the newest release.",
)
user_option = click.option(
    "--user",
    type=click.Choice(["tester", "root"]),
    default=SUITE_USER,
    show_default=True,
    help="tester: as the tests run. root: to look around as the administrator; what the variant puts the tests "
    "under (a profile, a container) does not confine it.",
)


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
@click.argument("guest", shell_complete=completion.guests)
@click.argument("variant", default="stock", shell_complete=completion.variants)
@build_option
@user_option
@click.pass_obj
def shell_command(lab: common.Lab, guest: str, variant: str, build: str | None, user: Who) -> int:
    """Open a shell in a guest, in the state that the tests of a cell see.

    VARIANT is stock if not given. The first shell with a build deploys and stores it; later ones start in
    seconds. The guest is removed when the shell ends, and the exit status is the shell's. Without a terminal
    the shell reads its commands from standard input.
    """
    terminal = sys.stdin.isatty()
    with _opened(lab, _cell(guest, variant, build)) as opened:
        if terminal:
            introduce(opened.entrance, user)
        return run(opened, opened.entrance.shell(user=user, terminal=terminal))


@click.command("exec", cls=WithCommand)
@click.argument("guest", shell_complete=completion.guests)
@click.argument("variant", default="stock", shell_complete=completion.variants)
@build_option
@user_option
@click.pass_context
def exec_command(context: click.Context, guest: str, variant: str, build: str | None, user: Who) -> int:
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
    with _opened(context.obj, _cell(guest, variant, build)) as opened:
        stdin = not sys.stdin.isatty()
        return run(opened, opened.entrance.command(words, user=user, stdin=stdin))


def introduce(entrance: Entrance, user: Who) -> None:
    """Say where the shell is, and how to run the suite there."""
    if user == "root":
        common.say("a shell as root, which the variant does not confine")
        return
    common.say(f"the suite, as a cell runs it (arrow up in the shell):\n  {entrance.suite}")
    common.say(f"one test of it:\n  {entrance.one_test}")


def run(opened: Opened, command: list[str]) -> int:
    """Run ssh and give its exit status. Raises LaneDied if the guest's machine died meanwhile."""
    status = subprocess.run(command, check=False).returncode
    if status == SSH_FAILED:
        opened.lane.check_alive()
    return status


def _cell(guest: str, variant: str, build: str | None) -> Cell:
    known = catalog.load()
    return plan.Cell(known.guest(guest), known.variant(variant), builds.resolve(build))


@contextmanager
def _opened(lab: common.Lab, cell: Cell) -> Iterator[Opened]:
    # Standard output is the command's.
    with common.errors.status("starting") as status:
        opened = shell.ready(cell, lab.paths, lab.uri, lambda text: status.update(escape(text)))
        with opened as guest:
            status.stop()
            yield guest
