"""The worker of one host of an inventory: a thread that has its SSH login, from first to last."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import paramiko

from lab.base.errors import LabError
from lab.base.files import plain
from lab.base.wait import Deadline
from lab.fleet.certificates import Bundle
from lab.fleet.inventory import Host
from lab.fleet.overview import INSTALLED
from lab.fleet.remote import Login
from lab.fleet.tether import BEAT_SECONDS, JOINED

# How long a host may take until its worker can be started, and then until that says that it has joined.
PREPARE_SECONDS = 180.0
JOIN_SECONDS = 180.0
# A clock that differs by more than this is told, in seconds.
CLOCKS_APART = 60.0
# The device that the user of a host with `kvm` has to open.
KVM = "/dev/kvm"
# How often it is looked whether the worker has to be sent something, or is late.
LOOK_SECONDS = 1.0
# What is kept of a worker's output for an error, in lines.
SHOWN_LINES = 20
# A longer line is cut, in bytes.
LONGEST_LINE = 2000

Say = Callable[[str], None]


class JoiningWorker(threading.Thread):
    """The worker of one host, from the first connection to its end.

    `fault` says why it did not join, or why it ended before it was told to.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        bundle: Bundle,
        words: Sequence[str],
        say: Say,
        check: Callable[[], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.fault: str | None = None
        self.has_joined = False
        self._check = check
        self._login = Login(name, host)
        self._host, self._bundle, self._words, self._say = host, bundle, words, say
        self._is_ending = False
        self._channel: paramiko.Channel | None = None

    def run(self) -> None:
        try:
            self._prepare(Deadline(PREPARE_SECONDS, f"{self.name} to be made ready"))
            self._serve()
        except LabError as error:
            if not self._is_ending:
                self._say(str(error))
            self.fault = str(error)
        except Exception as error:
            self.fault = repr(error)
            raise
        finally:
            self._login.close()
            self._check()

    def end(self) -> None:
        """Let the worker end: close its standard input, or the connection if none has been started."""
        self._is_ending = True
        if self._channel is None:
            self._login.close()
        else:
            with suppress(paramiko.SSHException, OSError, EOFError):
                self._channel.shutdown_write()

    def cut(self) -> None:
        """Close the connection to a worker that does not end."""
        self._login.close()

    def _prepare(self, deadline: Deadline) -> None:
        """Do what is done before the worker is started. Raises LabError."""
        self._login.open()
        self._compare_clocks(deadline)
        if self._host.kvm:
            hint = f"let the user open /dev/kvm there, or leave `kvm` of hosts.{self.name} out"
            self._login.run(["test", "-r", KVM, "-a", "-w", KVM], deadline, hint=hint)
        self._install(deadline)

    def _serve(self) -> None:
        """Start the worker, and wait for its end. Raises LabError then, and if it does not join."""
        deadline = Deadline(JOIN_SECONDS, f"{self.name} to join")
        words = [*self._host.program, *self._words]
        last: deque[str] = deque(maxlen=SHOWN_LINES)
        try:
            self._channel = self._login.start(words, combined=True)
            if self._is_ending:
                self.end()
            for line in self._lines(self._channel):
                if line is not None:
                    last.append(line)
                    self.has_joined = self.has_joined or line.startswith(JOINED)
                if not self.has_joined and not deadline.remaining:
                    raise TimeoutError
            status = self._channel.recv_exit_status()
        except TimeoutError as error:
            raise self._login.late(words, deadline, "\n".join(last)) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._login.broke(words, error) from error
        raise self._login.ended(words, status, "\n".join(last))

    def _lines(self, channel: paramiko.Channel) -> Iterator[str | None]:
        """The lines of the worker's output, cut to LONGEST_LINE, and None now and then.

        Meanwhile the worker is sent something, so that it knows that its connection is whole.
        """
        rest, next_beat = b"", 0.0
        channel.settimeout(LOOK_SECONDS)
        while True:
            if time.monotonic() >= next_beat and not self._is_ending:
                # One that has ended says more by what it printed.
                with suppress(OSError):
                    channel.sendall(b"\n")
                next_beat = time.monotonic() + BEAT_SECONDS
            try:
                block = channel.recv(65536)
            except TimeoutError:
                yield None
                continue
            *whole, rest = (rest + block).split(b"\n")
            if not block and rest:
                whole, rest = [rest], b""
            for line in whole:
                yield plain(line[:LONGEST_LINE].decode(errors="replace"))
            if not block:
                return
            rest = rest[:LONGEST_LINE]

    def _compare_clocks(self, deadline: Deadline) -> None:
        """Certificates and the times in a record go by each host's own clock."""
        printed = self._login.run(["date", "-u", "+%s"], deadline).strip()
        apart = time.time() - int(printed) if printed.isdecimal() else 0.0
        if abs(apart) > CLOCKS_APART:
            which = "behind" if apart > 0 else "ahead of"
            self._say(
                f"host {self.name}: its clock is {abs(apart) / 60:.0f} min {which} this host's: its times "
                "are wrong, and certificates may be refused; set it (timedatectl set-ntp true)"
            )

    def _install(self, deadline: Deadline) -> None:
        """Give the host its certificate, if it has none or another one. Raises LabError."""
        printed = self._login.run([*self._host.program, "hosts", "list", "--json"], deadline)
        try:
            known = {
                each["fingerprint"] for each in json.loads(printed)["certificates"] if each["role"] == INSTALLED
            }
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(
                f"host {self.name}: its lab does not say which certificate it has: {plain(printed[:200])!r}",
                hint="install the same lab there as here",
            ) from error
        if self._bundle.fingerprint not in known:
            words = [*self._host.program, "hosts", "install"]
            self._login.run(words, deadline, stdin=self._bundle.file.read_text())
