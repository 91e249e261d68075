"""The connection to libvirt."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from lab.errors import LabError


class NoLibvirt(LabError):
    """libvirt cannot be reached; the hint says how to start it."""


def default_uri() -> str:
    """`LAB_CONNECT`, or the system daemon for root and the session daemon for anyone else."""
    chosen = os.environ.get("LAB_CONNECT")
    return chosen or ("qemu:///system" if os.geteuid() == 0 else "qemu:///session")


def connect(uri: str) -> libvirt.virConnect:
    """Open a connection. Raises NoLibvirt."""
    # The binding prints every error to standard error as well as raising it.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise NoLibvirt(f"cannot connect to {uri}: {error}", hint=how_to_start(uri)) from error


@contextmanager
def connection(uri: str) -> Iterator[libvirt.virConnect]:
    """A connection for the length of a block. Closing it ends the domains it started."""
    opened = connect(uri)
    try:
        yield opened
    finally:
        opened.close()


def how_to_start(uri: str) -> str:
    """The command that brings the daemon for this URI up on this host."""
    if uri.endswith("///session"):
        return "install libvirt-daemon; the session daemon starts by itself (./setup.sh doctor does both)"
    if Path("/run/systemd/system").is_dir():
        return "systemctl start libvirtd (./setup.sh doctor does it)"
    return "virtlogd -d && libvirtd -d (./setup.sh doctor does it)"


def version(number: int) -> str:
    """Libvirt's and QEMU's version numbers as people write them: 11003000 is 11.3.0."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
