"""The connection to libvirt."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from lab.base.errors import LabError
from lab.base.wait import Deadline

# libvirt starts a session's daemon when it is asked for, and ends it two minutes after its last use. Of 25
# connections that met such an end 6 failed; the next attempt works.
SESSION_SECONDS = 20.0


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
    deadline = Deadline(SESSION_SECONDS if _is_session(uri) else 0.0, f"libvirt at {uri}")
    while True:
        try:
            return libvirt.open(uri)
        except libvirt.libvirtError as error:
            if not _has_no_socket(error) or deadline.remaining == 0.0:
                hint = how_to_start(uri) if _has_no_socket(error) else "see --connect and LAB_CONNECT"
                raise NoLibvirt(f"cannot connect to {uri}: {error}", hint=hint) from error
        time.sleep(0.5)


def _is_session(uri: str) -> bool:
    return uri.endswith("///session")


def _has_no_socket(error: libvirt.libvirtError) -> bool:
    """Whether nobody listened. A daemon that ends takes the socket of its successor with it."""
    kind = (error.get_error_domain(), error.get_error_code())
    return kind == (libvirt.VIR_FROM_RPC, libvirt.VIR_ERR_SYSTEM_ERROR)


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
    if _is_session(uri):
        return "install libvirt-daemon; the session daemon starts by itself (./setup.sh doctor does both)"
    if Path("/run/systemd/system").is_dir():
        return "systemctl start libvirtd (./setup.sh doctor does it)"
    return "virtlogd -d && libvirtd -d (./setup.sh doctor does it)"


def version(number: int) -> str:
    """Libvirt's and QEMU's version numbers as people write them: 11003000 is 11.3.0."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
