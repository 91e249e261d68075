"""An SSH server of paramiko's parts on a loopback address, which runs commands as this user.

python -m tests.fleet.server FOLDER prints its port. It ends with its input.
"""

import base64
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import IO

import paramiko
from fabric.tunnels import Tunnel
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_CONNECT_FAILED, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_OK

from lab.machine.seed import make_keys


class User:
    """A user with a home folder: a key to log in with, and what servers the user knows."""

    def __init__(self, home: Path) -> None:
        self.home, self.key = home, make_keys("user")
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        # Who logged in, and the key of the server that was started last.
        self.logins: list[str] = []
        self.server_key = self.key
        # What the server says is in a folder, by its path.
        self.listed: dict[str, list[paramiko.SFTPAttributes]] = {}
        self.known_hosts = home / ".ssh" / "known_hosts"
        self.known_hosts.touch()
        file = home / ".ssh" / "id_ed25519"
        file.touch(mode=0o600)
        file.write_text(self.key.private)


class _Interface(paramiko.ServerInterface):
    """Lets one key in, runs what it asks for, and forwards ports of loopback both ways."""

    def __init__(self, user: User, environment: dict[str, str], transport: paramiko.Transport) -> None:
        self.user = user
        self._key = paramiko.Ed25519Key(data=base64.b64decode(user.key.public.split()[1]))
        self._environment = environment
        self._transport = transport
        self._targets: dict[int, socket.socket] = {}
        # paramiko forgets a channel that nobody has; a command comes later than its channel.
        self._channels: list[paramiko.Channel] = []

    def check_port_forward_request(self, address: str, port: int) -> int:
        listening = socket.create_server((address, port))
        own: tuple[str, int] = listening.getsockname()

        def accept() -> None:
            with listening, suppress(OSError, EOFError, paramiko.SSHException):
                while self._transport.is_active():
                    listening.settimeout(1.0)
                    with suppress(TimeoutError):
                        connection, origin = listening.accept()
                        connection.settimeout(None)
                        channel = self._transport.open_forwarded_tcpip_channel(origin, own)
                        Tunnel(channel, connection, threading.Event()).start()

        threading.Thread(target=accept, daemon=True).start()
        return own[1]

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        """As sshd: a port where nobody listens is a channel that does not open."""
        try:
            self._targets[chanid] = socket.create_connection(destination)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        return OPEN_SUCCEEDED

    def accept_all(self) -> None:
        """Take in each channel, and start those that lead to a port of this host."""
        while self._transport.is_active():
            channel = self._transport.accept(1.0)
            if channel and channel.chanid in self._targets:
                Tunnel(channel, self._targets.pop(channel.chanid), threading.Event()).start()
            elif channel:
                self._channels.append(channel)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if key != self._key:
            return AUTH_FAILED
        self.user.logins.append(username)
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_run, args=(channel, command, self._environment), daemon=True).start()
        return True


class _Files(paramiko.SFTPServerInterface):
    """The files of this host. Of some folders the server says what a test has it say."""

    def __init__(self, server: "_Interface", *_: object) -> None:
        self._listed = server.user.listed

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        try:
            stream = os.fdopen(
                os.open(path, flags, attr.st_mode or 0o600),
                "rb+" if flags & (os.O_WRONLY | os.O_RDWR) else "rb",
            )
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        handle = _File(flags)
        handle.readfile = handle.writefile = stream  # type: ignore[attr-defined]
        return handle

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    lstat = stat

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        entries = sorted(Path(path).iterdir())
        return self._listed.get(
            path, [paramiko.SFTPAttributes.from_stat(entry.lstat(), filename=entry.name) for entry in entries]
        )

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        Path(path).mkdir()
        return SFTP_OK


class _File(paramiko.SFTPHandle):
    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))  # type: ignore[attr-defined]

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        os.fchmod(self.readfile.fileno(), attr.st_mode or 0o600)  # type: ignore[attr-defined]
        return SFTP_OK


def _run(channel: paramiko.Channel, command: bytes, environment: dict[str, str]) -> None:
    """Run a command as sshd does without a terminal: it gets no signal when the connection goes."""
    child = subprocess.Popen(
        ["sh", "-c", command.decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=environment["HOME"],
        env=environment,
    )
    assert child.stdin and child.stdout and child.stderr
    threading.Thread(target=_fill, args=(channel, child.stdin), daemon=True).start()
    errors = threading.Thread(target=_pump, args=(child.stderr, channel.sendall_stderr))
    errors.start()
    _pump(child.stdout, channel.sendall)
    errors.join()
    status = child.wait()
    with suppress(OSError, EOFError, paramiko.SSHException):
        channel.send_exit_status(status)
        channel.close()


def _fill(channel: paramiko.Channel, stdin: IO[bytes]) -> None:
    with suppress(OSError), stdin:
        while block := channel.recv(4096):
            stdin.write(block)
            stdin.flush()


def _pump(stream: IO[bytes], send: Callable[[bytes], object]) -> None:
    with stream:
        while block := os.read(stream.fileno(), 4096):
            with suppress(OSError, EOFError):
                send(block)


@contextmanager
def paramiko_server(user: User, environment: dict[str, str]) -> Iterator[int]:
    """A server of paramiko's parts; its port."""
    host_key = user.server_key = make_keys("host")
    transports: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(paramiko.Ed25519Key.from_private_key(StringIO(host_key.private)))
                transports.append(transport)
                with suppress(paramiko.SSHException, EOFError):
                    interface = _Interface(user, environment, transport)
                    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
                    transport.start_server(event=threading.Event(), server=interface)
                    threading.Thread(target=interface.accept_all, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        port = listening.getsockname()[1]
        kind, text = host_key.public.split()[:2]
        user.known_hosts.write_text(f"{user.known_hosts.read_text()}[127.0.0.1]:{port} {kind} {text}\n")
        yield port
        listening.shutdown(socket.SHUT_RDWR)
    for transport in transports:
        transport.close()


def environment(user: User) -> dict[str, str]:
    """What a command of this user's sees; its own programs are found first."""
    return {"HOME": str(user.home), "PATH": f"{user.home}/bin:{os.environ['PATH']}"}


if __name__ == "__main__":
    user = User(Path(sys.argv[1]))
    with paramiko_server(user, environment(user)) as port:
        print(port, flush=True)
        sys.stdin.read()
