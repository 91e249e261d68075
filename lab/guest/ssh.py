"""One SSH connection to a guest: whether a server listens, the login, and whether the server is still there.

The guest must show the one host key that it was given.
"""

import base64
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import StringIO

import paramiko
from fabric import Config, Connection

from lab.base.errors import LabError
from lab.base.speed import ORDINARY, Speed
from lab.guest.runner import BoundedRemote
from lab.machine.lane import Endpoint, LaneDied

# How often the guest's SSH server is asked whether it is still there, while a command runs.
ASK_SECONDS = 15.0
# A server that is silent for so long will not answer again: the guest has no network, or nothing runs in it.
# This limit and the next ones suffice for emulation on ordinary hardware.
SILENT_SECONDS = 90.0
CONNECT_SECONDS, BANNER_SECONDS, LOGIN_SECONDS = 10.0, 30.0, 30.0
# How long a server that is up may take to show its banner, before it is asked once more.
SHOW_SECONDS = 2.0


class SessionLost(LabError):
    """SSH to the guest broke, or a command in it did not end in time."""


def shows_banner(endpoint: Endpoint, speed: Speed = ORDINARY) -> bool:
    """Whether the guest's server is up: passt accepts connections long before, so only its banner counts.

    Raises LaneDied if nothing forwards its port any more.
    """
    limit = speed.from_emulation(SHOW_SECONDS)
    try:
        with _connect(endpoint, limit) as probe:
            probe.settimeout(limit)
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def check_network(endpoint: Endpoint) -> None:
    """Raise LaneDied if the guest has lost its network: nothing forwards its port any more."""
    with suppress(OSError):
        _connect(endpoint, SHOW_SECONDS).close()


def _connect(endpoint: Endpoint, seconds: float) -> socket.socket:
    """A connection to the guest's port, within so many seconds.

    Raises OSError, or LaneDied if nothing listens there. What forwards the port, passt or QEMU itself, does so
    from before the guest's start to its end, and is never started again.
    """
    try:
        return socket.create_connection((endpoint.host, endpoint.port), seconds)
    except ConnectionRefusedError as error:
        where = f"{endpoint.host}:{endpoint.port}"
        raise LaneDied(
            f"the guest has no network: nothing listens on {where}, so what forwarded it (passt) has ended"
        ) from error


def log_in(endpoint: Endpoint, user: str, speed: Speed) -> Connection:
    """An open connection. Raises what paramiko raises, BadHostKeyException for another host key."""
    key = paramiko.Ed25519Key.from_private_key(StringIO(endpoint.client_key.private))
    connection = Connection(
        endpoint.host,
        user=user,
        port=endpoint.port,
        connect_timeout=speed.from_emulation(CONNECT_SECONDS),
        connect_kwargs={
            "pkey": key,
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": speed.from_emulation(BANNER_SECONDS),
            "auth_timeout": speed.from_emulation(LOGIN_SECONDS),
        },
        config=Config(overrides={"load_ssh_configs": False, "runners": {"remote": BoundedRemote}}),
    )
    kind, text = endpoint.host_key.public.split()[:2]
    connection.client.get_host_keys().add(
        f"[{endpoint.host}]:{endpoint.port}", kind, paramiko.Ed25519Key(data=base64.b64decode(text))
    )
    # fabric's own choice is to accept any key.
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    connection.open()
    return connection


class Pulse:
    """Asks the guest's SSH server now and then, over the open connections, whether it is still there.

    passt takes what is sent to a guest and keeps the connection open, so a guest without a network looks like
    one that is busy.
    """

    def __init__(self, transports: Callable[[], Sequence[paramiko.Transport]], speed: Speed = ORDINARY) -> None:
        self._transports = transports
        self._speed = speed
        self._waited = 0.0
        self._asking: list[threading.Thread] = []

    def check(self, seconds: float) -> None:
        """To be called every so many seconds. Raises SessionLost if the server has been silent for too long.

        Calls are counted rather than a clock read: the lab itself may have been stopped meanwhile.
        """
        self._waited += seconds
        if not all(thread.is_alive() for thread in self._asking):
            self._asking, self._waited = [], 0.0
        limit = self._speed.from_emulation(SILENT_SECONDS)
        if self._asking and self._waited >= limit:
            raise SessionLost(f"its SSH server did not answer for {limit:.0f} s ({self._speed})")
        if not self._asking and self._waited >= ASK_SECONDS:
            self._asking = [
                threading.Thread(target=_ask, args=(each,), name="pulse", daemon=True)
                for each in self._transports()
            ]
            for thread in self._asking:
                thread.start()
            self._waited = 0.0


def _ask(transport: paramiko.Transport) -> None:
    """Ask a server, and wait until it answers or the connection is closed. OpenSSH calls this request so."""
    with suppress(paramiko.SSHException, OSError, EOFError):
        transport.global_request("keepalive@openssh.com", wait=True)
