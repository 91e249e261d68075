"""One SSH login on a worker host: its commands, each within a deadline, and what to do when one fails.

The host has to show a key that `~/.ssh/known_hosts` has, and the login is one that asks nothing: a key of the
user's, or of the SSH agent.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import paramiko
from fabric import Connection

from lab.base.errors import LabError
from lab.base.files import bounded, plain
from lab.base.wait import Deadline
from lab.fleet.inventory import Host

SITE_KEYS = Path("/etc/ssh/ssh_known_hosts")
CONNECT_SECONDS = 30
# How often the connection carries something, so that no firewall forgets it.
KEEP_ALIVE_SECONDS = 15
# What an error shows, and what is read of an answer at most, in characters and bytes.
MOST_SHOWN, MOST_READ = 3000, 2**20
# What a shell's exit status says.
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class Login:
    """A login on the host `name`. Errors are LabErrors that name the host, the command, and the next step."""

    def __init__(self, name: str, host: Host) -> None:
        self.name, self.host = name, host
        self._connection = Connection(
            host.address,
            user=host.user,
            port=host.port,
            forward_agent=False,
            connect_timeout=CONNECT_SECONDS,
            connect_kwargs={"banner_timeout": CONNECT_SECONDS, "auth_timeout": CONNECT_SECONDS},
        )
        _refuse_unknown_keys(self._connection)

    def open(self) -> None:
        """Log in. Raises LabError."""
        ssh, reached = f"`{self.host.reached} true`", self._connection
        try:
            self._connection.open()
        except paramiko.BadHostKeyException as error:
            raise self._failed(
                f"{reached.host} shows another host key than known_hosts has",
                f"find out why; if the host was installed anew: ssh-keygen -R {error.hostname}, then {ssh}",
            ) from error
        except paramiko.AuthenticationException as error:
            raise self._failed(
                f"the login of {reached.user} was refused: {_words(error)}",
                f"{ssh} has to work without a question: ssh-copy-id, or ssh-add for a key with a passphrase",
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            hint = f"{ssh} has to work without a question"
            if "not found in known_hosts" in str(error):
                hint = f"run {ssh} once, and compare the host key that it shows with the host's own"
            raise self._failed(
                f"no connection to {reached.host}:{reached.port}: {_words(error)}", hint
            ) from error
        self._connection.transport.set_keepalive(KEEP_ALIVE_SECONDS)

    def run(self, words: Sequence[str], deadline: Deadline, *, stdin: str = "", hint: str | None = None) -> str:
        """Run a command to its end; its standard output. Raises LabError; `hint` is for one that fails."""
        try:
            channel = self.start(words)
            channel.settimeout(max(0.1, deadline.remaining))
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            printed = _read(channel)
            errors = channel.makefile_stderr("rb").read(MOST_SHOWN).decode(errors="replace")
            status = channel.recv_exit_status()
        except TimeoutError as error:
            raise self.late(words, deadline, "") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.broke(words, error) from error
        if status != 0:
            raise self.ended(words, status, errors or printed, hint)
        return printed

    def start(self, words: Sequence[str], *, combined: bool = False) -> paramiko.Channel:
        """Start a command; `combined`: both of its outputs are one. Raises SSHException."""
        channel: paramiko.Channel = self._connection.transport.open_session(timeout=CONNECT_SECONDS)
        channel.set_combine_stderr(combined)
        channel.exec_command(shlex.join(words))
        return channel

    def late(self, words: Sequence[str], deadline: Deadline, printed: str) -> LabError:
        """The error of a command that took too long."""
        said = bounded(plain(printed).strip(), MOST_SHOWN)
        what = f"waited {deadline.seconds:.0f} s for {deadline.what}; `{shlex.join(words)}` printed"
        return self._failed(f"{what} {said or 'nothing'}", f"try it there: {self.host.reached}")

    def broke(self, words: Sequence[str], error: Exception) -> LabError:
        """The error of a command whose connection broke."""
        return self._failed(f"SSH broke during `{shlex.join(words)}`: {_words(error)}", None)

    def ended(self, words: Sequence[str], status: int, printed: str, hint: str | None = None) -> LabError:
        """The error of a command that ended when it should not have."""
        if status in (NOT_FOUND, NOT_EXECUTABLE):
            hint = (
                f"set `lab` or `command` of hosts.{self.name} to where the lab is there; ./setup.sh installs it"
            )
        said = bounded(plain(printed).strip(), MOST_SHOWN)
        # paramiko's word for a channel that closed without a status.
        how = "the connection closed" if status == -1 else f"exit status {status}"
        return self._failed(f"`{shlex.join(words)}`: {how}\n{said}".rstrip(), hint)

    def close(self) -> None:
        """Close the connection; whatever runs over it is told by that."""
        self._connection.client.close()

    def _failed(self, what: str, hint: str | None) -> LabError:
        return LabError(f"host {self.name}: {what}", hint=hint)


def _refuse_unknown_keys(connection: Connection) -> None:
    """Fabric's own choice is to accept any key, of a jump host as well."""
    client = connection.client
    client.load_system_host_keys()
    if SITE_KEYS.exists():
        client.load_system_host_keys(str(SITE_KEYS))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    if isinstance(connection.gateway, Connection):
        _refuse_unknown_keys(connection.gateway)


def _read(channel: paramiko.Channel) -> str:
    found = b""
    while len(found) < MOST_READ and (block := channel.recv(65536)):
        found += block
    return found.decode(errors="replace")


def _words(error: Exception) -> str:
    return plain(" ".join(str(error).split())) or type(error).__name__
