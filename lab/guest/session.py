"""Commands and files over SSH to one guest, watched and limited in time. Uses fabric."""

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import paramiko
from fabric import Connection
from invoke.exceptions import CommandTimedOut, ThreadException
from paramiko.ssh_exception import NoValidConnectionsError

from lab.base.errors import LabError
from lab.base.files import bounded, plain
from lab.base.speed import Speed
from lab.base.wait import Deadline, DeadlineExpired, wait_for
from lab.guest import programs, ssh
from lab.guest.agent import Agent, AgentLost
from lab.guest.programs import MOST_SHOWN, Answer, Call, Keep, RemoteFailed, keep_none
from lab.guest.ssh import SessionLost, printed_too_much
from lab.machine import seed
from lab.machine.lane import Endpoint, LaneDied

User = Literal["lab", "tester"]
ADMIN: User = "lab"
SUITE: User = "tester"
assert (ADMIN, SUITE) == (seed.ADMIN_USER, seed.SUITE_USER)

# How often the machine is checked while one of the lab's commands runs in it.
WATCH_SECONDS = 2.0

# How often a guest's SSH server is asked whether it is up; less often the longer it takes. QEMU keeps each
# connection for a guest that has no network yet, so a server that comes up meets all of them, and OpenSSH lets
# nobody in who gave up fifteen lately (PerSourcePenalties and MaxStartups of sshd_config(5)).
LOOK_SECONDS = 10.0

# libvirt notices that a machine died a moment after its connections broke. For so long it is asked, so that the
# error names the machine's death and not the broken connection.
NOTICE_SECONDS = 2.0

# What forwards a guest's port ends with its machine, and libvirt has been seen to notice the machine's end more
# than two seconds later. For so long it is asked after nothing listens on the port.
GONE_SECONDS = 10.0

# How long the guest may take to answer a request of SFTP, under hardware acceleration.
SFTP_SECONDS = 10.0
# OpenSSH's server of SFTP, where Debian and Fedora have it, in root's home.
SFTP_AS_ROOT = (
    "sudo -n -H sh -c 'cd; for each in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server; "
    "do test -x $each && exec $each; done'"
)


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
        self._arriving: dict[User, ssh.Arrival] = {}
        # What the watch found wrong with the guest before it dropped the connections.
        self._found = ""

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
        server is up; as long as it does not, the server is asked now and then. Raises DeadlineExpired, LaneDied
        if the guest has lost its network, or whatever `alive` and `listens` raise.
        """
        begun = time.monotonic()
        next_look = 0.0

        def attempt() -> bool | None:
            nonlocal next_look
            with self._told_of_the_machine():
                if not listens():
                    now = time.monotonic()
                    if now < next_look:
                        return None
                    next_look = now + max(LOOK_SECONDS, (now - begun) / 2)
                    if not ssh.shows_banner(self._endpoint, self.speed):
                        return None
            try:
                self._connection(ADMIN)
            except (paramiko.SSHException, OSError, EOFError) as error:
                if isinstance(error, paramiko.BadHostKeyException):
                    raise SessionLost(f"the guest showed a host key that is not its own: {error}") from error
                if isinstance(error, NoValidConnectionsError):
                    with self._told_of_the_machine():
                        ssh.check_network(self._endpoint)
                return None  # The server answers before the accounts exist.
            return True

        deadline = self.speed.deadline(seconds, "the guest's SSH server")
        wait_for(attempt, deadline, alive=self._alive)

    def run(
        self, command: str, *, seconds: float, user: User = ADMIN, check: bool = True, name: str = ""
    ) -> Output:
        """Run a shell command; `seconds` is its limit under hardware acceleration. Errors call it `name`.

        Raises SessionLost, RemoteFailed if `check` is set, LaneDied if the guest has lost its network, or
        whatever `alive` raises.
        """
        limit = self.speed.from_kvm(seconds)
        called = f"`{name or _short(command)}`"
        try:
            with self._watched():
                connection = self._connection(user)
                result = connection.run(command, hide=True, warn=True, in_stream=False, timeout=limit)
        except ThreadException as error:
            if printed_too_much(error):
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
            return self.agent.call(calls, seconds=seconds, keep=keep).results
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
        if not answer.take_all(output.stdout.splitlines()):
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
        for user in [*self._connections, *self._arriving]:
            self.log_out(user)

    def arrive(self, user: User) -> None:
        """Log the user out and connect again, up to the login itself, which waits for the user's next command.

        So that login is one of the state that the guest is in then.
        """
        self.log_out(user)
        self._arriving[user] = ssh.Arrival(self._endpoint, user, self.speed)

    def log_out(self, user: User) -> None:
        """Drop one user's connection: their next command is run in a new login."""
        if arriving := self._arriving.pop(user, None):
            arriving.leave()
        connection = self._connections.pop(user, None)
        # Connection.close would wait for the other side, which a loaded checkpoint has forgotten.
        if connection is not None and connection.transport is not None:
            connection.transport.close()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Drop the connections as soon as the machine is gone: a stopped guest does not close them."""
        done = threading.Event()
        self._found = ""

        def watch() -> None:
            pulse = ssh.Pulse(self._transports, self.speed)
            while not done.wait(WATCH_SECONDS):
                try:
                    self._alive()
                    pulse.check(WATCH_SECONDS)
                except LabError as error:
                    self._found = str(error) if isinstance(error, SessionLost) else self._found
                    # Again and again: a connection may just be under way.
                    self.close()

        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _transports(self) -> list[paramiko.Transport]:
        """The connections that are open."""
        return [each.transport for each in list(self._connections.values()) if each.transport is not None]

    def _connection(self, user: User) -> Connection:
        if user not in self._connections:
            # It stays in its place meanwhile, so that the watch can drop it.
            arriving = self._arriving.get(user)
            connection = arriving.log_in() if arriving else None
            self._connections[user] = connection or ssh.log_in(self._endpoint, user, self.speed)
            self._arriving.pop(user, None)
        return self._connections[user]

    @contextmanager
    def _told_of_the_machine(self) -> Iterator[None]:
        """If the block finds that nothing forwards the guest's port, see whether the machine's end is why.

        Raises what the block raises, or whatever `alive` raises.
        """
        try:
            yield
        except LaneDied:
            with suppress(DeadlineExpired):
                wait_for(lambda: None, Deadline(GONE_SECONDS, "libvirt"), alive=self._alive, interval=0.1)
            raise

    def _lost(self, message: str, error: BaseException | None) -> NoReturn:
        self.close()
        message = f"{message}: {self._found}" if self._found else message
        with suppress(DeadlineExpired):
            wait_for(lambda: None, Deadline(NOTICE_SECONDS, "libvirt"), alive=self._alive, interval=0.1)
        try:
            with self._told_of_the_machine():
                ssh.check_network(self._endpoint)
        except LaneDied as gone:
            raise LaneDied(f"{message}; {gone}") from error
        raise SessionLost(message) from error


def _short(command: str, length: int = 120) -> str:
    first = command.splitlines()[0] if command else ""
    return first if len(first) <= length else first[: length - 1] + "…"
