"""Commands over SSH to one guest, limited in time.

The guest must show the one host key that it was given, and no more is taken of what it prints than the lab can
hold.
"""

import base64
import re
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, cast

import paramiko

from lab.base.errors import LabError
from lab.base.files import clean_text, cut_text
from lab.base.wait import Deadline, DeadlineExpired, Speed, call_within, wait_for
from lab.guest import agent, programs
from lab.guest.agent import Agent, AgentLost
from lab.guest.programs import MOST_SHOWN, Call, Keep, ProgramReply, RemoteFailed, refuse_file
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

# How often the machine is checked while a command in it prints nothing.
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
BLOCK = 2**15

# What writes the input of a command in a guest into the stream that it gets.
WriteInput = Callable[[IO[bytes]], object]


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
    `speed` stretches all limits of time; `set_speed` changes it.
    """

    def __init__(self, endpoint: Endpoint, *, alive: Callable[[], None], speed: Speed) -> None:
        self.endpoint = endpoint
        self.alive = alive
        self.speed = speed
        self.agent: Agent | None = None
        self._connections: dict[User, paramiko.Transport] = {}

    def use(self, endpoint: Endpoint) -> None:
        """Continue with other keys."""
        self.close()
        self.endpoint = endpoint

    def renew_key(self) -> Endpoint:
        """Replace the client key of the guest's accounts by a new one, and set its clock.

        Returns how to log in from now on. Connections that are open stay: a login takes seconds. Raises what
        `programs` raises.
        """
        renewed = replace(self.endpoint, client_key=seed.make_keys("lab"))
        files = [f"/home/{user}/.ssh/authorized_keys" for user in (ADMIN, SUITE)]
        argument = {"clock": time.time(), "key": renewed.client_key.public, "files": files}
        self.program("renew_key", argument, seconds=10)
        self.endpoint = renewed
        return renewed

    def wait_open(self, seconds: float, *, listens: Callable[[], bool] = lambda: True) -> None:
        """Wait until the administrator can log in.

        `seconds` is the limit on ordinary hardware with KVM. `listens` is called until it says that the guest's
        server is up; as long as it does not, the server is asked now and then. Raises DeadlineExpired, or
        whatever `alive` and `listens` raise.
        """
        start = time.monotonic()
        next_look = 0.0

        def attempt() -> bool | None:
            nonlocal next_look
            if not listens():
                moment = time.monotonic()
                if moment < next_look:
                    return None
                next_look = moment + max(LOOK_SECONDS, (moment - start) / 2)
                if not self._shows_banner():
                    return None
            try:
                self.log_in(ADMIN)
            except (paramiko.SSHException, OSError, EOFError):
                return None  # The server answers before the accounts exist.
            return True

        wait_for(attempt, self.speed.deadline(seconds, "the guest's SSH server"), alive=self.alive)

    def run(
        self,
        command: str,
        *,
        seconds: float,
        user: User = ADMIN,
        check: bool = True,
        name: str = "",
        write_input: WriteInput | None = None,
    ) -> Output:
        """Run a shell command; `seconds` is its limit under hardware acceleration. Errors call it `name`.

        `write_input` writes its standard input, which is empty otherwise. Raises SessionLost, RemoteFailed if
        it prints too much or `check` is set, or whatever `alive` and `write_input` raise; an OSError of
        `write_input` becomes a LabError.
        """
        limit = self.speed.from_kvm(seconds)
        called = f"`{name or cut_text(command.partition('\n')[0], 120)}`"
        try:
            output = self.execute(self.log_in(user), command, Deadline(limit, called), write_input)
        except DeadlineExpired as error:
            self._lost(f"{called} did not end within {limit:.0f} s ({self.speed})", error)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._lost(f"SSH broke during {called}: {error}", error)
        if output.status == -1:  # paramiko's word for a channel that closed without a status
            self._lost(f"SSH closed during {called}", None)
        if check and output.status != 0:
            printed = cut_text(f"{output.stdout}{output.stderr}".rstrip(), MOST_SHOWN)
            raise RemoteFailed(f"{called} in the guest: exit status {output.status}\n{printed}".rstrip())
        return output

    def execute(
        self,
        transport: paramiko.Transport,
        command: str,
        deadline: Deadline,
        write_input: WriteInput | None = None,
    ) -> Output:
        """Run a command until it has closed its output and ended.

        Raises DeadlineExpired, RemoteFailed if it prints too much, and what paramiko, `alive` and `write_input`
        raise.
        """
        printed, errors = bytearray(), bytearray()
        with transport.open_session(timeout=deadline.remaining) as channel:
            # A guest that stands still never answers this.
            call_within(lambda: channel.exec_command(command), deadline)
            with _feed_channel(channel, write_input, deadline):
                readable = select.poll()
                readable.register(channel.fileno(), select.POLLIN)
                while True:
                    # All that was printed before the end is in the buffers by then.
                    is_whole = channel.eof_received or channel.closed
                    blocks = (
                        channel.recv(BLOCK) if channel.recv_ready() else b"",
                        channel.recv_stderr(BLOCK) if channel.recv_stderr_ready() else b"",
                    )
                    printed += blocks[0]
                    errors += blocks[1]
                    if len(printed) + len(errors) > MOST_BYTES:
                        raise RemoteFailed(f"{deadline.event} in the guest printed more than the lab accepts")
                    if any(blocks):
                        continue
                    if is_whole:
                        break
                    if not readable.poll(min(WATCH_SECONDS, deadline.remaining) * 1000):
                        self.alive()
                        deadline.check()
                while not channel.status_event.wait(min(WATCH_SECONDS, deadline.remaining)):
                    self.alive()
                    deadline.check()
                status = channel.recv_exit_status()
        return Output(status, printed.decode(errors="replace"), errors.decode(errors="replace"))

    def program(self, name: str, argument: dict[str, Any], *, seconds: float) -> Any:
        """Run one of `programs` as root with a JSON argument, and return the JSON that it prints."""
        [result] = self.programs([(name, argument)], seconds=seconds)
        return result

    def programs(self, calls: Sequence[Call], *, seconds: float, keep: Keep = refuse_file) -> list[Any]:
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
        prefix = f"sudo -n -H {under}" if user == ADMIN else under
        [result] = self._programs_once(prefix, [(name, argument)], user=user, seconds=seconds)
        return result

    def _programs_once(
        self, prefix: str, calls: Sequence[Call], *, user: User, seconds: float, keep: Keep = refuse_file
    ) -> list[Any]:
        """Run programs in one interpreter of their own, over SSH."""
        answer = ProgramReply(calls, keep)
        command = f"{prefix} {shlex.join(programs.build_command(calls))}".strip()
        output = self.run(command, seconds=seconds, user=user, name=answer.names)
        if not any(answer.take(line[0]) for line in re.finditer(".+", output.stdout)):
            printed = clean_text(cut_text(f"{output.stdout}{output.stderr}", MOST_SHOWN))
            raise RemoteFailed(f"{answer.names} in the guest printed no JSON of its results: {printed}")
        return answer.results

    def start_agent(self, port: Path) -> None:
        """Start the guest's agent, which then runs the lab's programs. Raises AgentLost, or as `run` does.

        `port` is the socket that leads to it.
        """
        self.run(agent.start_command(), seconds=agent.LOAD_SECONDS, name="the agent's start")
        self.meet_agent(port).load()

    def meet_agent(self, port: Path) -> Agent:
        """Connect to the agent, which runs already. Raises AgentLost."""
        self.agent = Agent(port, alive=self.alive, speed=self.speed)
        self.agent.sync()
        return self.agent

    def wait_back(self, seconds: float) -> None:
        """Wait until a guest whose state was loaded answers: its agent, or else SSH within so many seconds.

        Raises AgentLost, or as `wait_open` does.
        """
        if self.agent:
            self.agent.sync()
        else:
            self.wait_open(seconds)

    def set_speed(self, speed: Speed) -> None:
        """Stretch all limits of time for a guest of this speed from now on."""
        self.speed = speed
        if self.agent:
            self.agent.speed = speed

    def disconnect(self) -> None:
        """Drop the connections, the agent's too: the machine ends or is started again."""
        self.close()
        if self.agent:
            self.agent.close()
            self.agent = None

    def close(self) -> None:
        """Drop the connections, but not the agent's. The session can be used again: it opens new ones."""
        for user in list(self._connections):
            self.log_out(user)

    def log_out(self, user: User) -> None:
        """Drop one user's connection: their next command is run in a new login."""
        if connection := self._connections.pop(user, None):
            connection.close()

    def log_in(self, user: User) -> paramiko.Transport:
        """The user's open connection, made if there is none.

        Raises SessionLost for another host key than the guest's, and what paramiko raises.
        """
        if user in self._connections:
            return self._connections[user]
        endpoint, limit = self.endpoint, self.speed.from_emulation
        host_key = paramiko.Ed25519Key(data=base64.b64decode(endpoint.host_key.public.split()[1]))
        address = (endpoint.host, endpoint.port)
        transport = paramiko.Transport(socket.create_connection(address, limit(CONNECT_SECONDS)))
        try:
            transport.banner_timeout = limit(BANNER_SECONDS)
            transport.auth_timeout = limit(LOGIN_SECONDS)
            transport.get_security_options().key_types = [host_key.get_name()]
            transport.start_client(timeout=limit(BANNER_SECONDS))
            if transport.get_remote_server_key() != host_key:
                raise SessionLost("the guest showed a host key that is not its own")
            client_key = paramiko.Ed25519Key.from_private_key(StringIO(endpoint.client_key.private))
            transport.auth_publickey(user, client_key)
        except BaseException:
            transport.close()
            raise
        self._connections[user] = transport
        return transport

    def _shows_banner(self) -> bool:
        """Whether the guest's server is up: QEMU accepts connections long before, so only its banner counts."""
        limit = self.speed.from_emulation(SHOW_SECONDS)
        try:
            with socket.create_connection((self.endpoint.host, self.endpoint.port), limit) as connection:
                connection.settimeout(limit)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _lost(self, message: str, error: BaseException | None) -> NoReturn:
        self.close()
        with suppress(DeadlineExpired):
            wait_for(lambda: None, Deadline(NOTICE_SECONDS, "libvirt"), alive=self.alive, interval=0.1)
        raise SessionLost(message) from error


@contextmanager
def _feed_channel(
    channel: paramiko.Channel, write_input: WriteInput | None, deadline: Deadline
) -> Iterator[None]:
    """Write a command's input while the block waits for its end. Raises what `write_input` raises.

    The guest decides how fast it reads. A command may end before it has read everything: its status says why.
    """
    if write_input is None:
        channel.shutdown_write()
        yield
        return
    errors: list[Exception] = []

    def feed() -> None:
        stream = cast(IO[bytes], channel.makefile_stdin("wb"))
        try:
            write_input(stream)
            stream.close()
        except Exception as error:
            # What paramiko raises for a channel that the guest has closed says no more than that.
            if not channel.closed:
                errors.append(error)
                with suppress(EOFError, paramiko.SSHException):  # The connection is gone.
                    channel.close()

    thread = threading.Thread(target=feed, name=f"the input of {deadline.event}", daemon=True)
    thread.start()
    try:
        yield
        # The guest closes the channel of a command that has ended, which ends the thread.
        thread.join(deadline.remaining)
    finally:
        if thread.is_alive():
            # If a guest stands still in the middle of a packet, closing the channel would wait for it, too.
            channel.get_transport().close()
            thread.join()
    if errors and isinstance(errors[0], OSError):
        raise LabError(f"the input of {deadline.event} could not be read: {errors[0]}") from errors[0]
    if errors:
        raise errors[0]
