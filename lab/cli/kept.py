"""Guests that are kept: a shell in them, files copied into and out of them, their end."""

import re
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.markup import escape

from lab.base.errors import UsageError
from lab.base.files import plain
from lab.cli import common, completion, consoles
from lab.cli.shell import open_shell, user_option
from lab.guest import transfer
from lab.guest.session import Session
from lab.lane import keeper
from lab.lane.entrance import Who
from lab.lane.keeper import Kept

# NAME:PATH. A path of this host with a colon in it has a slash before that: ./a:b.
IN_GUEST = re.compile(r"(?P<name>[^/:]+):(?P<path>.*)", re.DOTALL)


@click.command("attach")
@click.argument("name", required=False, shell_complete=completion.kept)
@user_option
@click.option("--list", "only_list", is_flag=True, help="List the guests that are kept.")
@click.option("--end", is_flag=True, help="Remove the guest instead.")
@click.pass_obj
def attach_command(lab: common.Lab, name: str | None, user: Who, only_list: bool, end: bool) -> int:
    """Open a shell in a guest that was kept with --keep, or end the guest.

    NAME may be left out if one guest is kept. A kept guest is there until it is ended, its machine dies, or
    this host or libvirt is stopped. The exit status is the shell's.
    """
    lab.sweep()
    if only_list:
        if name or end:
            raise UsageError("--list goes with nothing else", hint="lab attach --list")
        _list(keeper.all_kept(lab.paths))
        return 0
    kept = keeper.find(lab.paths, name)
    if end:
        keeper.end(kept)
        common.say(f"ended {kept.name}; nothing of it is left")
        return 0
    return open_shell(kept, user)


@click.command("copy")
@click.argument("source", metavar="SRC", shell_complete=completion.copied)
@click.argument("target", metavar="DST", shell_complete=completion.copied)
@user_option
@click.pass_obj
def copy_command(lab: common.Lab, source: str, target: str, user: Who) -> int:
    """Copy a file or a folder into a kept guest, or out of it.

    One of SRC and DST is NAME:PATH of a kept guest (see `lab attach --list`), the other a path of this host. A
    path in the guest that is not absolute begins at the user's home. If DST is a folder, the copy is put into
    it. Links and special files are left out.
    """
    lab.sweep()
    there = [IN_GUEST.fullmatch(each) for each in (source, target)]
    found = next(filter(None, there), None)
    if found is None or all(there):
        raise UsageError(
            "one of SRC and DST is a path of this host, the other NAME:PATH of a kept guest",
            hint="for example: lab copy NAME:/tmp/log . (lab attach --list has the names)",
        )
    kept, remote = keeper.find(lab.paths, found["name"]), found["path"] or "."
    session = Session(kept.entrance.endpoint, alive=kept.check_alive, speed=kept.entrance.speed)
    login, as_root = kept.entrance.logs_in_as(user)
    with (
        consoles.errors.status("copying") as status,
        session.sftp(login, as_root=as_root) as sftp,
    ):
        copying = transfer.Copying(sftp, lambda text: status.update(escape(text)))
        put = copying.upload(Path(source), remote) if there[1] else copying.download(remote, Path(target))
    session.close()
    left_out = f"; left out: {_counted(copying.left_out, 'link or special file')}" if copying.left_out else ""
    common.say(plain(f"{put}: {_counted(copying.files, 'file')}, {common.mib(copying.size)}{left_out}"))
    return 0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _list(found: list[Kept]) -> None:
    if not found:
        common.say("no guest is kept; keep one: lab shell GUEST [VARIANT] --keep")
        return
    rows = [["name", "cell", "for", "keeper"]]
    for kept in found:
        minutes = (datetime.now(UTC) - kept.since).total_seconds() / 60
        rows.append([kept.name, kept.cell, f"{minutes:.0f} min", f"process {kept.keeper}"])
    common.print_rows(rows)
