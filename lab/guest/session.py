"""Commands and files over SSH to one guest, limited in time. Uses fabric.

The guest must show the one host key that it was given, and no more is taken of what it prints than the lab can
hold.
"""

import base64
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any, Literal, NoReturn

import paramiko
from fabric import Config, Connection
from fabric.runners import Remote
from invoke.exceptions import CommandTimedOut, ThreadException

from lab.base.errors import LabError
from lab.base.files import bounded, plain
from lab.base.wait import Deadline, DeadlineExpired, Speed, wait_for
from lab.guest import programs
from lab.guest.agent import Agent, AgentLost
from lab.guest.programs import MOST_SHOWN, Answer, Call, Keep, RemoteFailed, keep_none
from lab.machine import seed
from lab.machine.lane import Endpoint

User = Literal["lab", "tester"]
ADMIN: User = "lab"
SUITE: User = "tester"
assert (ADMIN, SUITE) == (seed.ADMIN_USER, seed.SUITE_USER)

# These limits suffice for emulation on ordinary hardware.
CONNECT_SECONDS, BANNER_SECONDS, LOGIN_SECONDS = 10.0, 30.0, 30.0
# How long a server that is up may take to show its banner, before it is asked once more.
SHOW_SECONDS = 2.0

# How often the machine is checked while one of the lab's commands runs in it.
WATCH_SECONDS = 2.0

# How often a guest's SSH server is asked whether it is up; less often the longer it takes. QEMU keeps each
# connection for a guest that has no network yet, so a server that comes up meets all of them, and OpenSSH lets
# nobody in who gave up fifteen lately (PerSourcePenalties and MaxStartups of sshd_config(5)).
LOOK_SECONDS = 10.0

# libvirt notices that a machine died a moment after its connections broke, and has needed more than 2 seconds.
# For so long it is asked, so that the error names the machine's death and not the broken connection.
NOTICE_SECONDS = 10.0

# The most that a command may print. The longest that the lab asks for is a suite's report.
MOST_BYTES = 16 * 2**20

# How long the guest may take to answer a request of SFTP, under hardware acceleration.
SFTP_SECONDS = 10.0
# OpenSSH's server of SFTP, where Debian and Fedora have it, in root's home.
SFTP_AS_ROOT = (
    "sudo -n -H sh -c 'cd; for each in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server; "
    "do test -x $each && exec $each; done'"
)


class SessionLost(LabError):
    """SSH to the guest broke, or a command in it did not end in time."""


@dataclass(frozen=True)
class Output:
    status: int
    stdout: str
    stderr: str


class Session:
    """Connections to one guest as the administrator and as the suite's user, each opened when first used.

    `agent`, if there is one, runs the lab's own programs instead of the administrator. `alive` raises if the
    guest's machine is gone. It is asked first when a connection breaks, so that the error names the true cause.
    `speed` stretches all limits of time; it may be changed.
    """

    def __init__(self, endpoint: Endpoint, *, alive: Callable[[], None], speed: Speed) -> None:
        self._endpoint = endpoint
        self._alive = alive
        self.speed = speed
        self.agent: Agent | None = None
        self._connections: dict[User, Connection] = {}

    def use(self, endpoint: Endpoint) -> None:
        """Continue with other keys."""
        self.close()
        self._endpoint = endpoint

    def renew_key(self) -> Endpoint:
        """Replace the client key of the guest's accounts by a new one, and set its clock.

        Returns how to log in from now on. Connections that are open stay: a login takes seconds. Raises what
        `programs` raises.
        """
        renewed = replace(self._endpoint, client_key=seed.new_keys("lab"))
        files = [f"/home/{user}/.ssh/authorized_keys" for user in (ADMIN, SUITE)]
        argument = {"clock": time.time(), "key": renewed.client_key.public, "files": files}
        self.program("renew_key", argument, seconds=10)
        self._endpoint = renewed
        return renewed

    def wait_open(self, seconds: float, *, listens: Callable[[], bool] = lambda: True) -> None:
        """Wait until the administrator can log in.

        `seconds` is the limit on ordinary hardware with KVM. `listens` is called until it says that the guest's
        server is up; as long as it does not, the server is asked now and then. Raises DeadlineExpired, or
        whatever `alive` and `listens` raise.
        """
        begun = time.monotonic()
        next_look = 0.0

        def attempt() -> bool | None:
            nonlocal next_look
            if not listens():
                now = time.monotonic()
                if now < next_look:
                    return None
                next_look = now + max(LOOK_SECONDS, (now - begun) / 2)
                if not self._shows_banner():
                    return None
            try:
                self._connection(ADMIN)
            except (paramiko.SSHException, OSError, EOFError) as error:
                if isinstance(error, paramiko.BadHostKeyException):
                    raise SessionLost(f"the guest showed a host key that is not its own: {error}") from error
                return None  # The server answers before the accounts exist.
            return True

        wait_for(attempt, self.speed.deadline(seconds, "the guest's SSH server"), alive=self._alive)

    def run(
        self, command: str, *, seconds: float, user: User = ADMIN, check: bool = True, name: str = ""
    ) -> Output:
        """Run a shell command; `seconds` is its limit under hardware acceleration. Errors call it `name`.

        Raises SessionLost, RemoteFailed if `check` is set, or whatever `alive` raises.
        """
        limit = self.speed.from_kvm(seconds)
        called = f"`{name or bounded(command.partition('\n')[0], 120)}`"
        try:
            with self._watched():
                connection = self._connection(user)
                result = connection.run(command, hide=True, warn=True, in_stream=False, timeout=limit)
        except ThreadException as error:
            if any(isinstance(one.value, _PrintedTooMuch) for one in error.exceptions):
                raise RemoteFailed(f"{called} in the guest printed more than the lab takes") from error
            self._lost(f"SSH broke during {called}: {error.exceptions[0].value}", error)
        except CommandTimedOut as error:
            self._lost(f"{called} did not end within {limit:.0f} s ({self.speed})", error)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._lost(f"SSH broke during {called}: {error}", error)
        if result.exited == -1:  # paramiko's word for a channel that closed without a status
            self._lost(f"SSH closed during {called}", None)
        if check and result.exited != 0:
            printed = bounded(f"{result.stdout}{result.stderr}".rstrip(), MOST_SHOWN)
            raise RemoteFailed(f"{called} in the guest: exit status {result.exited}\n{printed}".rstrip())
        return Output(result.exited, result.stdout, result.stderr)

    def program(self, name: str, argument: dict[str, Any], *, seconds: float) -> Any:
        """Run one of `programs` as root with a JSON argument, and return the JSON that it prints."""
        [result] = self.programs([(name, argument)], seconds=seconds)
        return result

    def programs(self, calls: Sequence[Call], *, seconds: float, keep: Keep = keep_none) -> list[Any]:
        """Run several programs as root, one after another; the files that they send go to `keep`.

        The agent runs them, or without one the administrator. Raises as `run` does.
        """
        if self.agent is None:
            return self._programs_once("sudo -n -H", calls, user=ADMIN, seconds=seconds, keep=keep)
        try:
            return self.agent.call(calls, seconds=seconds, keep=keep)
        except AgentLost as error:
            self._lost(str(error), error)

    def program_as(self, user: User, under: str, name: str, argument: dict[str, Any], *, seconds: float) -> Any:
        """Run one of `programs` in a login of a user, who is root if it is the administrator.

        `under` is put before the interpreter's command line. Raises as `run` does.
        """
        before = f"sudo -n -H {under}" if user == ADMIN else under
        [result] = self._programs_once(before, [(name, argument)], user=user, seconds=seconds)
        return result

    def _programs_once(
        self, before: str, calls: Sequence[Call], *, user: User, seconds: float, keep: Keep = keep_none
    ) -> list[Any]:
        """Run programs in one interpreter of their own, over SSH."""
        answer = Answer(calls, keep)
        command = f"{before} {shlex.join(programs.command(calls))}".strip()
        output = self.run(command, seconds=seconds, user=user, name=answer.names)
        if not any(answer.take(line) for line in output.stdout.splitlines()):
            printed = bounded(plain(f"{output.stdout}{output.stderr}"), MOST_SHOWN)
            raise RemoteFailed(f"{answer.names} in the guest printed no JSON of its results: {printed}")
        return answer.results

    @contextmanager
    def sftp(self, user: User, *, as_root: bool = False) -> Iterator[paramiko.SFTPClient]:
        """A client for a user's files, or for root's if that user is the administrator.

        Raises LabError if the guest cannot be reached.
        """
        try:
            transport = self._connection(user).transport
            assert transport is not None, "the connection is open"
            channel = transport.open_session()
            channel.settimeout(self.speed.from_kvm(SFTP_SECONDS))
            if as_root:
                channel.exec_command(SFTP_AS_ROOT)
            else:
                channel.invoke_subsystem("sftp")
            client = paramiko.SFTPClient(channel)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._lost(f"SFTP could not be started: {error}", error)
        with client:
            yield client

    def close(self) -> None:
        """Drop the connections, but not the agent's. The session can be used again: it opens new ones."""
        for user in list(self._connections):
            self.log_out(user)

    def log_out(self, user: User) -> None:
        """Drop one user's connection: their next command is run in a new login."""
        connection = self._connections.pop(user, None)
        # Connection.close would wait for the other side, which a loaded checkpoint has forgotten.
        if connection is not None and connection.transport is not None:
            connection.transport.close()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Drop the connections as soon as the machine is gone: a stopped guest does not close them."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(WATCH_SECONDS):
                try:
                    self._alive()
                except LabError:
                    # Again and again: a connection may just be under way.
                    self.close()

        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _connection(self, user: User) -> Connection:
        """The user's open connection. Raises what paramiko raises, BadHostKeyException for another host key."""
        if user in self._connections:
            return self._connections[user]
        endpoint = self._endpoint
        connection = Connection(
            endpoint.host,
            user=user,
            port=endpoint.port,
            connect_timeout=self.speed.from_emulation(CONNECT_SECONDS),
            connect_kwargs={
                "pkey": paramiko.Ed25519Key.from_private_key(StringIO(endpoint.client_key.private)),
                "allow_agent": False,
                "look_for_keys": False,
                "banner_timeout": self.speed.from_emulation(BANNER_SECONDS),
                "auth_timeout": self.speed.from_emulation(LOGIN_SECONDS),
            },
            config=Config(overrides={"load_ssh_configs": False, "runners": {"remote": _BoundedRemote}}),
        )
        kind, text = endpoint.host_key.public.split()[:2]
        connection.client.get_host_keys().add(
            f"[{endpoint.host}]:{endpoint.port}", kind, paramiko.Ed25519Key(data=base64.b64decode(text))
        )
        # fabric's own choice is to accept any key.
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        connection.open()
        self._connections[user] = connection
        return connection

    def _shows_banner(self) -> bool:
        """Whether the guest's server is up: QEMU accepts connections long before, so only its banner counts."""
        limit = self.speed.from_emulation(SHOW_SECONDS)
        try:
            with socket.create_connection((self._endpoint.host, self._endpoint.port), limit) as connection:
                connection.settimeout(limit)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _lost(self, message: str, error: BaseException | None) -> NoReturn:
        self.close()
        with suppress(DeadlineExpired):
            wait_for(lambda: None, Deadline(NOTICE_SECONDS, "libvirt"), alive=self._alive, interval=0.1)
        raise SessionLost(message) from error


class _PrintedTooMuch(Exception):
    """A command printed more than is taken."""


class _BoundedRemote(Remote):  # type: ignore[misc]
    """Raises _PrintedTooMuch, inside of a ThreadException, as soon as a command printed too much."""

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
            raise _PrintedTooMuch
        return block
