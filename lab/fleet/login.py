"""The SSH login on a host of a run. It brings the run's key, starts dask's worker, and carries its connections.

The host has to show a key that `~/.ssh/known_hosts` has, and the login is one that asks nothing: a key of the
user's, or of the SSH agent. dask's connections go through the login both ways, so no port is open to a network.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

import paramiko
import psutil
from fabric import Connection
from fabric.tunnels import Tunnel

from lab.base.errors import LabError
from lab.base.files import clean_text
from lab.fleet.inventory import LOOPBACK, HostEntry
from lab.fleet.messages import WorkerSettings, WorkerStart

CONNECT_SECONDS = 30
# How long the worker may take to end; its lab takes machines down.
END_SECONDS = 60.0
# How often the worker is sent something.
BEAT_SECONDS = 5.0
# A worker that had begun is started again so often, after so many seconds.
STARTS, AGAIN_SECONDS = 5, 10.0
# What an error shows of a worker's output, in lines and in characters of a line.
SHOWN_LINES, SHOWN = 20, 500
# What is read of a line, in characters.
LONGEST_LINE = 10_000
# What a shell's exit status says.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
# paramiko's status of a channel that closed without one.
CLOSED = -1
BROKEN = (paramiko.SSHException, OSError, EOFError)


class WorkerEnd(NamedTuple):
    """How dask's worker on a host ended: the exit status of its command, and the last lines of its output."""

    status: int
    output: str


class Login(threading.Thread):
    """The login on host `name`, from its first connection to the end of its worker.

    `worker` is what its worker says of itself. `fault` says why the host is not used, or no longer.
    `scheduler` is where dask's scheduler listens. `say` is told what people have to know, in this thread.
    """

    def __init__(
        self, name: str, host: HostEntry, key: str, scheduler: tuple[str, int], say: Callable[[str], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.host, self.fault = host, ""
        self.worker: WorkerStart | None = None
        self._key, self._scheduler, self._say = key, scheduler, say
        self._is_ending = threading.Event()
        self._connection: Connection | None = None
        self._channel: paramiko.Channel | None = None
        self._listener: socket.socket | None = None

    def run(self) -> None:
        fault = ""
        for number in range(1, STARTS + 1):
            self.worker = None
            fault = self._run_worker()
            if self._is_ending.is_set():
                break
            self._say(fault)
            # What fails at first will fail again.
            if (number == 1 and not self.worker) or self._is_ending.wait(AGAIN_SECONDS * number):
                break
        self.fault = fault

    def end(self) -> None:
        """Let the worker end, and with it this login; it is not started again."""
        self._is_ending.set()
        if self._channel is None:
            self._close()
        else:
            with suppress(*BROKEN):
                self._channel.shutdown_write()

    def cut(self) -> None:
        """Kill a worker that does not answer or end, with all that it started, and close the connection."""
        if self.worker:
            with suppress(LabError, *BROKEN):
                channel = self._opened.transport.open_session()
                channel.settimeout(CONNECT_SECONDS)
                channel.exec_command(f"kill -s KILL -- -{self.worker.pid}")
                channel.recv(1)  # It is done when the channel ends.
        self._close()

    @contextmanager
    def files(self, action: str) -> Iterator[paramiko.SFTPClient]:
        """A channel for files. Raises LabError, also for an error of the block, which does `action`."""
        with self._explained(action), self._opened.transport.open_sftp_client() as files:
            yield files

    # -- from the first connection to the end of the worker

    def _run_worker(self) -> str:
        """Log in and run the worker to its end. Return why it ended, with the next step."""
        try:
            self._open()
            with self._explained(self.host.command):
                end = self._follow_worker(self._start_worker())
            return str(self._explain_end(end))
        except LabError as error:
            return str(error)
        except Exception as error:  # A bug of the lab: the other hosts go on.
            return f"host {self.name}: {error!r}"
        finally:
            self._close()

    def _open(self) -> None:
        """Log in. Raises LabError."""
        waits = dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), CONNECT_SECONDS)
        self._connection = connection = Connection(
            self.host.address, forward_agent=False, connect_timeout=CONNECT_SECONDS, connect_kwargs=waits
        )
        _refuse_unknown_keys(connection)
        try:
            connection.open()
        except BROKEN as error:
            ssh = f"ssh -p {connection.port} {connection.user}@{connection.original_host}"
            raise LabError(
                f"host {self.name}: no login as {connection.user} on {connection.host}: {_reason(error)}",
                hint=f"`{ssh} true` must work without a question: known_hosts must have the host's key "
                "(compare it with the host's own), and the host must have a key of yours or of your agent",
            ) from error

    def _start_worker(self) -> paramiko.Channel:
        """Start the worker and send its settings; return the channel of its command. Raises LabError."""
        with self._explained("let its SSH server forward ports: check AllowTcpForwarding in its sshd_config"):
            scheduler = self._opened.transport.request_port_forward(LOOPBACK, 0, self._connect_scheduler)
        settings = WorkerSettings(
            name=self.name,
            key=self._key,
            scheduler=f"tls://{LOOPBACK}:{scheduler}",
            contact=f"tls://{LOOPBACK}:{self._forward_to_worker()}",
            lanes=self.host.lanes,
            memory_mib=self.host.memory_mib,
        )
        channel: paramiko.Channel = self._opened.transport.open_session()
        self._channel = channel
        channel.set_combine_stderr(True)
        channel.exec_command(self.host.command)
        channel.settimeout(BEAT_SECONDS)
        self._send(channel, settings.model_dump_json())
        return channel

    def _follow_worker(self, channel: paramiko.Channel) -> WorkerEnd:
        """Read what the worker prints until it ends; send it empty lines meanwhile."""
        last: deque[str] = deque(maxlen=SHOWN_LINES)
        output, line = channel.makefile("r", 1), "-"
        while line:
            with suppress(TimeoutError):
                if line := clean_text(output.readline(LONGEST_LINE)):
                    last.append(line.rstrip()[:SHOWN])
                if line.startswith("{") and not self.worker:
                    with suppress(ValueError):  # What it printed is shown when it ends.
                        self.worker = WorkerStart.model_validate_json(line)
            self._send(channel, "")  # A worker that hears nothing ends.
        return WorkerEnd(channel.recv_exit_status(), "\n".join(last))

    def _send(self, channel: paramiko.Channel, line: str) -> None:
        """Send the worker a line, or the end of its input if it is to end."""
        with suppress(OSError):  # If it has ended, its output says why.
            if self._is_ending.is_set():
                channel.shutdown_write()
            else:
                channel.sendall(f"{line}\n".encode())

    # -- dask's connections

    def _connect_scheduler(self, channel: paramiko.Channel, _origin: object, _server: object) -> None:
        """The worker connects to the scheduler."""
        try:
            Tunnel(channel, socket.create_connection(self._scheduler), threading.Event()).start()
        except OSError:
            channel.close()

    def _forward_to_worker(self) -> int:
        """Listen on a port of this host's loopback that leads to the worker; return it."""
        transport = self._opened.transport
        self._listener = listener = socket.create_server((LOOPBACK, 0))

        def forward(connection: socket.socket, origin: tuple[str, int]) -> None:
            with suppress(*BROKEN, psutil.Error):
                # Whoever else of this host connects here would use up its files.
                if origin in {endpoint.laddr for endpoint in psutil.Process().net_connections("tcp")}:
                    target = (LOOPBACK, self.worker.port if self.worker else 0)
                    channel = transport.open_channel("direct-tcpip", target, origin)
                    Tunnel(channel, connection, threading.Event()).start()
                    return
            connection.close()  # dask connects again.

        def serve() -> None:
            with listener, suppress(OSError):
                while True:
                    forward(*listener.accept())

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    # -- the end, and errors

    def _close(self) -> None:
        self._channel = None
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        if self._connection:
            self._connection.client.close()

    @property
    def _opened(self) -> Connection:
        if self._connection is None or self._connection.transport is None:
            raise LabError(f"host {self.name}: the login has ended")
        return self._connection

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn the errors of a block into LabErrors; `action` says what the block does."""
        try:
            yield
        except BROKEN as error:
            raise LabError(f"host {self.name}: {_reason(error)}: `{action}`", hint="try it there") from error

    def _explain_end(self, end: WorkerEnd) -> LabError:
        """Explain the end of the worker, with the next step."""
        hint = None
        if end.status in (NOT_FOUND, NOT_EXECUTABLE) or "No module named" in end.output:
            hint = f"set `python` of hosts.{self.name} to the one that has the lab; ./setup.sh host makes it"
        status = "the connection closed" if end.status == CLOSED else f"exit status {end.status}"
        message = f"host {self.name}: `{self.host.command}`: {status}\n{end.output}"
        return LabError(message.rstrip(), hint=hint)


def end_workers(logins: Mapping[str, Login], say: Callable[[str], None]) -> None:
    """Let the workers of all hosts end, at the same time; kill those that do not."""
    for login in logins.values():
        login.end()
    by = time.monotonic() + END_SECONDS
    for name, login in logins.items():
        login.join(max(0.0, by - time.monotonic()))
        if login.is_alive():
            say(f"host {name}: its worker did not end in {END_SECONDS:.0f} s and is killed")
            login.cut()


def _refuse_unknown_keys(connection: Connection) -> None:
    """Fabric's own choice is to accept any key, of a jump host as well."""
    client = connection.client
    client.load_system_host_keys()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    if isinstance(connection.gateway, Connection):
        _refuse_unknown_keys(connection.gateway)


def _reason(error: Exception) -> str:
    return clean_text(" ".join(str(error).split())) or type(error).__name__
