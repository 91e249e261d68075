"""The SSH login on a host of a run. It brings the run's key, starts dask's worker, and carries its connections.

The host has to show a key that `~/.ssh/known_hosts` has, and the login is one that asks nothing: a key of the
user's, or of the SSH agent. dask's connections go through the login both ways, so no port is open to a network.
"""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import paramiko
import psutil
from fabric import Connection
from fabric.tunnels import Tunnel

from lab.base.errors import LabError
from lab.base.files import plain
from lab.fleet.inventory import LOOPBACK, Host
from lab.fleet.messages import WorkerStart

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
BROKEN = (paramiko.SSHException, OSError, EOFError)


class Login(threading.Thread):
    """The login on host `name`, from its first connection to the end of its worker.

    `worker` is what its worker says of itself. `fault` says why the host is not used, or no longer.
    `scheduler` is where dask's scheduler listens. `say` is told what people have to know, in this thread.
    """

    def __init__(
        self, name: str, host: Host, key: str, scheduler: tuple[str, int], say: Callable[[str], None]
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
            try:
                self._open()
                self._run_worker()
            except LabError as error:
                fault = str(error)
            except Exception as error:  # A bug of the lab: the other hosts go on.
                fault = f"host {self.name}: {error!r}"
            finally:
                self._close()
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
    def files(self, what: str) -> Iterator[paramiko.SFTPClient]:
        """A channel for files. Raises LabError, also for an error of the block, which does `what`."""
        with self._explained(what), self._opened.transport.open_sftp_client() as files:
            yield files

    # -- from the first connection to the end of the worker

    def _open(self) -> None:
        """Log in. Raises LabError."""
        waits = dict.fromkeys(("banner_timeout", "auth_timeout", "channel_timeout"), CONNECT_SECONDS)
        self._connection = reached = Connection(
            self.host.address, forward_agent=False, connect_timeout=CONNECT_SECONDS, connect_kwargs=waits
        )
        _refuse_unknown_keys(reached)
        try:
            reached.open()
        except BROKEN as error:
            ssh = f"ssh -p {reached.port} {reached.user}@{reached.original_host}"
            raise LabError(
                f"host {self.name}: no login as {reached.user} on {reached.host}: {_said(error)}",
                hint=f"`{ssh} true` has to work without a question: known_hosts has to have the host's key "
                "(compare it with the host's own), and the host one of yours or of your agent",
            ) from error

    def _run_worker(self) -> None:
        """Start the worker, and wait for its end. Raises LabError then."""
        last: deque[str] = deque(maxlen=SHOWN_LINES)
        with self._explained("have its SSH server forward a port; AllowTcpForwarding in its sshd_config?"):
            scheduler = self._opened.transport.request_port_forward(LOOPBACK, 0, self._connected_back)
        told = {
            "name": self.name,
            "key": self._key,
            "scheduler": f"tls://{LOOPBACK}:{scheduler}",
            "contact": f"tls://{LOOPBACK}:{self._way_to_worker()}",
            "lanes": self.host.lanes,
            "memory_mib": self.host.memory_mib,
        }
        with self._explained(self.host.command):
            self._channel = channel = self._opened.transport.open_session()
            channel.set_combine_stderr(True)
            channel.exec_command(self.host.command)
            channel.settimeout(BEAT_SECONDS)
            output, line, send = channel.makefile("r", 1), "-", json.dumps(told)
            while line:
                with suppress(OSError):  # If it has ended, its output says why.
                    if self._is_ending.is_set():
                        channel.shutdown_write()
                    else:
                        channel.sendall(f"{send}\n".encode())
                send = ""  # From now on empty lines: a worker that hears nothing ends.
                with suppress(TimeoutError):
                    if line := plain(output.readline(LONGEST_LINE)):
                        last.append(line.rstrip()[:SHOWN])
                    if line.startswith("{") and not self.worker:
                        with suppress(ValueError):  # It is told with all that it printed when it ends.
                            self.worker = WorkerStart.model_validate_json(line)
            status = channel.recv_exit_status()
        raise self._ended(status, "\n".join(last))

    # -- dask's connections

    def _connected_back(self, channel: paramiko.Channel, _origin: object, _server: object) -> None:
        """The worker connects to the scheduler."""
        try:
            Tunnel(channel, socket.create_connection(self._scheduler), threading.Event()).start()
        except OSError:
            channel.close()

    def _way_to_worker(self) -> int:
        """Listen on a port of this host's loopback that leads to the worker; return it."""
        transport = self._opened.transport
        self._listener = listener = socket.create_server((LOOPBACK, 0))

        def serve() -> None:
            with listener, suppress(*BROKEN):
                while True:
                    connection, origin = listener.accept()
                    # Whoever else of this host connects here would use up its files.
                    if origin not in {own.laddr for own in psutil.Process().net_connections("tcp")}:
                        connection.close()
                        continue
                    target = (LOOPBACK, self.worker.port if self.worker else 0)
                    channel = transport.open_channel("direct-tcpip", target, origin)
                    Tunnel(channel, connection, threading.Event()).start()

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
    def _explained(self, what: str) -> Iterator[None]:
        """Turn the errors of a block into LabErrors; it tries to do `what`."""
        try:
            yield
        except BROKEN as error:
            raise LabError(f"host {self.name}: {_said(error)}: `{what}`", hint="try it there") from error

    def _ended(self, status: int, printed: str) -> LabError:
        """The error of a worker that ended with this status; `printed` are its last words."""
        hint = None
        if status in (NOT_FOUND, NOT_EXECUTABLE) or "No module named" in printed:
            hint = f"set `python` of hosts.{self.name} to the one that has the lab; ./setup.sh host makes it"
        # paramiko's word for a channel that closed without a status.
        how = "the connection closed" if status == -1 else f"exit status {status}"
        return LabError(f"host {self.name}: `{self.host.command}`: {how}\n{printed}".rstrip(), hint=hint)


def end_all(logins: Mapping[str, Login], say: Callable[[str], None]) -> None:
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


def _said(error: Exception) -> str:
    return plain(" ".join(str(error).split())) or type(error).__name__
