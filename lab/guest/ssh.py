"""One SSH connection to a guest: whether a server listens, the login, and whether the server is still there.

The guest must show the one host key that it was given, and no more is taken of what it prints than the lab can
hold.
"""

import base64
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import StringIO

import paramiko
from fabric import Config, Connection
from fabric.runners import Remote
from invoke.exceptions import ThreadException
from paramiko import SSHConfig
from paramiko.auth_strategy import AuthSource, AuthStrategy, InMemoryPrivateKey

from lab.base.errors import LabError
from lab.base.speed import ORDINARY, Speed
from lab.machine.lane import Endpoint, LaneDied

# How often the guest's SSH server is asked whether it is still there, while a command runs.
ASK_SECONDS = 15.0
# A server that is silent for so long will not answer again: the guest has no network, or nothing runs in it.
# This limit and the next ones suffice for emulation on ordinary hardware.
SILENT_SECONDS = 90.0
CONNECT_SECONDS, BANNER_SECONDS, LOGIN_SECONDS = 10.0, 30.0, 30.0
# How long a server that is up may take to show its banner, before it is asked once more.
SHOW_SECONDS = 2.0
# The most that a command may print. The longest that the lab asks for is a suite's report.
MOST_BYTES = 16 * 2**20


class SessionLost(LabError):
    """SSH to the guest broke, or a command in it did not end in time."""


def shows_banner(endpoint: Endpoint, speed: Speed = ORDINARY) -> bool:
    """Whether the guest's server is up: QEMU accepts connections long before, so only its banner counts.

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

    Raises OSError, or LaneDied if nothing listens there. QEMU forwards the port for as long
    as the machine is there.
    """
    try:
        return socket.create_connection((endpoint.host, endpoint.port), seconds)
    except ConnectionRefusedError as error:
        where = f"{endpoint.host}:{endpoint.port}"
        raise LaneDied(
            f"the guest has no network: nothing listens on {where}, so what forwarded it has ended"
        ) from error


def log_in(endpoint: Endpoint, user: str, speed: Speed) -> Connection:
    """An open connection. Raises what paramiko raises, BadHostKeyException for another host key."""
    connection = _connection(endpoint, user, speed, _Login(endpoint, user))
    connection.open()
    return connection


class _Login(AuthStrategy):
    """A login with the endpoint's client key, unless `wait`, which may take its time, returns False."""

    def __init__(self, endpoint: Endpoint, user: str, wait: Callable[[], bool] = lambda: True) -> None:
        super().__init__(ssh_config=SSHConfig())
        key = paramiko.Ed25519Key.from_private_key(StringIO(endpoint.client_key.private))
        self._source = InMemoryPrivateKey(user, key)
        self._wait = wait

    def get_sources(self) -> Iterator[AuthSource]:
        if self._wait():
            yield self._source


class Arrival:
    """A user at the guest's door: connected, keys exchanged, not logged in.

    PAM, groups and limits come with the login, so they are those that the guest has when `log_in` is called.
    """

    def __init__(self, endpoint: Endpoint, user: str, speed: Speed) -> None:
        self._may_log_in = threading.Event()
        self._has_left = False
        self._failed = False
        self._connection = _connection(endpoint, user, speed, _Login(endpoint, user, self._wait))
        self._thread = threading.Thread(target=self._open, name=f"{user} arrives", daemon=True)
        self._thread.start()

    def _wait(self) -> bool:
        self._may_log_in.wait()
        return not self._has_left

    def _open(self) -> None:
        try:
            self._connection.open()
        except (paramiko.SSHException, OSError, EOFError):
            self._failed = True
            self._connection.client.close()

    def log_in(self) -> Connection | None:
        """The open connection. None if it failed: the server ends one that waits for long."""
        self._may_log_in.set()
        self._thread.join()
        return None if self._failed else self._connection

    def leave(self) -> None:
        """Drop the connection; one that is still being made ends without a login."""
        self._has_left = True
        transport = self._connection.client.get_transport()
        if transport is not None:
            transport.close()
        self._may_log_in.set()


def _connection(endpoint: Endpoint, user: str, speed: Speed, strategy: AuthStrategy) -> Connection:
    """A connection that is not open yet."""
    connection = Connection(
        endpoint.host,
        user=user,
        port=endpoint.port,
        connect_timeout=speed.from_emulation(CONNECT_SECONDS),
        connect_kwargs={
            "auth_strategy": strategy,
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
    return connection


class Pulse:
    """Asks the guest's SSH server now and then, over the open connections, whether it is still there.

    QEMU takes what is sent to a guest and keeps the connection open, so a guest without a network looks like
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


class TooMuch(Exception):
    """A command printed more than is taken."""


class BoundedRemote(Remote):  # type: ignore[misc]
    """Raises TooMuch, inside of a ThreadException, as soon as a command printed too much."""

    _taken = 0

    def read_proc_stdout(self, num_bytes: int) -> bytes:
        return self._counted(super().read_proc_stdout(num_bytes))

    def read_proc_stderr(self, num_bytes: int) -> bytes:
        return self._counted(super().read_proc_stderr(num_bytes))

    def respond(self, buffer_: list[str]) -> None:
        """Nothing answers to output. invoke would join all that was printed before, for every block."""

    def _counted(self, block: bytes) -> bytes:
        self._taken += len(block)
        if self._taken > MOST_BYTES:
            raise TooMuch
        return block


def printed_too_much(error: ThreadException) -> bool:
    """Whether a command failed because it printed too much."""
    return any(isinstance(each.value, TooMuch) for each in error.exceptions)
