"""The certificates with which several hosts share a run."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from lab.base.errors import UsageError
from lab.cli import common, completion
from lab.fleet import issuing, overview, places
from lab.fleet.certificates import Bundle, Role
from lab.fleet.overview import Entry

days_option = click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    default=issuing.DAYS,
    show_default=True,
    metavar="DAYS",
    help="Let the certificates be valid for so long; none ends later than the CA.",
)


@click.group("hosts")
def hosts_group() -> None:
    """Manage the certificates with which several hosts share a run.

    The coordinator's certificate is the right to run code as the user of each host worker; a host's is the
    right to join runs. Keep their files as SSH keys. docs/guides/several-hosts.md explains the rest.
    """


@hosts_group.command("init")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@days_option
@click.option(
    "--ca-days",
    type=click.IntRange(1, 36_500),
    default=issuing.AUTHORITY_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Let the CA be valid for so long.",
)
@click.pass_obj
def hosts_init(lab: common.Lab, names: tuple[str, ...], days: int, ca_days: int) -> int:
    """Make a CA, a certificate for this host as the coordinator, and one for each host NAME.

    A CA that is there already is never overwritten.
    """
    made = issuing.initialize(lab.paths, names, days=days, authority_days=ca_days)
    common.say(f"CA: {places.authority_file(lab.paths)}; it stays on this host")
    _show(made)
    return 0


@hosts_group.command("add")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@days_option
@click.pass_obj
def hosts_add(lab: common.Lab, names: tuple[str, ...], days: int) -> int:
    """Make certificates for more hosts."""
    _show(issuing.add(lab.paths, names, days=days))
    return 0


@hosts_group.command("renew")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.certificates)
@days_option
@click.pass_obj
def hosts_renew(lab: common.Lab, names: tuple[str, ...], days: int) -> int:
    """Make new keys and certificates of the same CA, for these hosts or for all.

    `coordinator` is the one of this host. A host's new certificate has to be brought there.
    """
    _show(issuing.renew(lab.paths, names, days=days))
    return 0


@hosts_group.command("install")
@click.argument("file", type=click.File(), default="-")
@click.pass_obj
def hosts_install(lab: common.Lab, file: Any) -> int:
    """Take over FILE, or standard input, as the certificate of this host as a worker.

    For example, on the coordinator's host: ssh HOST lab hosts install < HOST.pem
    """
    if file is sys.stdin and file.isatty():
        raise UsageError("standard input is a terminal", hint="lab hosts install FILE, or ... < FILE")
    try:
        text = file.read(places.LONGEST)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.name}: not a text, so it holds no certificate") from error
    bundle = issuing.install(lab.paths, text, file.name)
    common.say(f"{bundle.name}: certificate until {bundle.expires:%Y-%m-%d} in {bundle.file}")
    return 0


@hosts_group.command("list")
@common.json_option
@click.pass_obj
def hosts_list(lab: common.Lab, as_json: bool) -> int:
    """List the certificates: whose, until when, and what is wrong with them."""
    found = overview.entries(lab.paths)
    if as_json:
        common.print_json({"certificates": [_document(entry) for entry in found]})
    elif found:
        now = datetime.now(UTC)
        common.print_rows([["name", "role", "state", "until", "file"], *(_row(entry, now) for entry in found)])
        for entry in found:
            if entry.fault:
                common.say(f"unusable: {entry.fault}")
    else:
        common.say("no certificates yet; make them with: lab hosts init NAME...")
    return 0


def _show(made: Sequence[Bundle]) -> None:
    common.print_rows(
        [[each.role, each.name, f"until {each.expires:%Y-%m-%d}", str(each.file)] for each in made]
    )
    if hosts := [each for each in made if each.role == Role.WORKER]:
        common.say("bring each to its host, and keep it as an SSH key:")
        for each in hosts:
            common.say(f"  ssh {each.name} lab hosts install < {each.file}")


def _row(entry: Entry, now: datetime) -> list[str]:
    until = f"{entry.expires:%Y-%m-%d} ({(entry.expires - now).days} days)" if entry.expires else "-"
    return [entry.name, entry.role, entry.state, until, str(entry.file)]


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "role": entry.role,
        "state": entry.state,
        "expires": entry.expires.isoformat() if entry.expires else None,
        "fingerprint": entry.fingerprint,
        "file": str(entry.file),
        "fault": entry.fault,
    }
