"""The resident agent of a guest: it runs the lab's programs as root, reached over a virtio-serial port.

It is started once, before a checkpoint is taken. In a fork it answers as soon as the machine's state is loaded:
no login, no sudo, no start of an interpreter. Its other side is `loader.py`.
"""

import base64
import json
import secrets
import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lab.base.errors import LabError
from lab.base.wait import Deadline, Speed
from lab.guest import programs
from lab.guest.programs import Call, Keep, ProgramReply, refuse_file
from lab.machine.domain import AGENT_PORT

# Where its program is in the guest.
FILE = "/run/lab-agent.py"
# How often the machine is checked while an answer is waited for.
WATCH_SECONDS = 1.0
# How long the agent may take to answer that it is there, under hardware acceleration: as an SSH server may.
SYNC_SECONDS = 30.0
# How long it may take to compile all programs.
LOAD_SECONDS = 5.0
BLOCK = 2**16
# The longest line is a file of evidence.
MOST_LINE = 16 * 2**20


class AgentLost(LabError):
    """The agent did not answer, or not in time."""


def start_command() -> str:
    """The administrator's command that starts the agent; it ends as soon as the agent has its port."""
    text = base64.b64encode(programs.read_loader().encode()).decode()
    script = f"umask 077; echo {text} | base64 -d >{FILE} && python3 -I -S {FILE} agent {AGENT_PORT}"
    return f"sudo -n -H sh -c {shlex.quote(script)}"


class Agent:
    """The host's side of one guest's agent. Raises AgentLost, or whatever `alive` raises.

    `path` is the socket at which QEMU has the port; the connection lasts as long as the machine.
    """

    def __init__(self, path: Path, *, alive: Callable[[], None], speed: Speed) -> None:
        self.speed = speed
        self.alive = alive
        self._token = ""
        self._number = 0
        self._left = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise AgentLost(f"QEMU's end of the agent's port cannot be opened: {error}") from error

    def close(self) -> None:
        self._socket.close()

    def sync(self) -> None:
        """Wait until it answers after this load of the machine's state.

        What an earlier life of the machine sent is dropped, and what was sent to one is not heeded any more.
        """
        self._token = secrets.token_hex(16)
        deadline = self.speed.deadline(SYNC_SECONDS, "the guest's agent")
        # An earlier life may have read the beginning of a line.
        self._send(b"\n", {"token": self._token}, deadline)
        echo = json.dumps({"token": self._token}).encode()
        next(line for line in self._lines(deadline) if line == echo)

    def load(self) -> None:
        deadline = self.speed.deadline(LOAD_SECONDS, "the guest's agent to compile the lab's programs")
        self._ask({"programs": programs.read_sources()}, ProgramReply([]), deadline)

    def call(self, calls: Sequence[Call], *, seconds: float, keep: Keep = refuse_file) -> list[Any]:
        """Run programs one after another; `seconds` is their limit under hardware acceleration.

        Returns what each of them printed. Raises RemoteFailed, too, if one of them fails.
        """
        answer = ProgramReply(calls, keep)
        deadline = self.speed.deadline(seconds, f"`{answer.names}` in the guest")
        self._ask({"calls": [(name, json.dumps(argument)) for name, argument in calls]}, answer, deadline)
        return answer.results

    def _ask(self, request: dict[str, object], answer: ProgramReply, deadline: Deadline) -> None:
        self._number += 1
        self._send(b"", {"token": self._token, "id": self._number, **request}, deadline)
        about = json.dumps({"id": self._number}).encode().removesuffix(b"}") + b","
        answers = (line for line in self._lines(deadline) if line.startswith(about))
        while not answer.take(next(answers)):
            pass

    def _send(self, prefix: bytes, line: dict[str, object], deadline: Deadline) -> None:
        self._socket.settimeout(deadline.remaining)
        try:
            self._socket.sendall(prefix + json.dumps(line).encode() + b"\n")
        except OSError as error:
            self.alive()
            raise AgentLost(f"{deadline.event}: the request could not be sent: {error}") from error

    def _lines(self, deadline: Deadline) -> Iterator[bytes]:
        """The lines that come, without end. Raises AgentLost at the deadline."""
        while True:
            line, newline, remainder = self._left.partition(b"\n")
            if newline:
                self._left = remainder
                yield line
                continue
            if len(self._left) > MOST_LINE:
                raise AgentLost(f"{deadline.event} sent a line of more than {MOST_LINE // 2**20} MiB")
            if deadline.remaining == 0.0:
                self.alive()
                raise AgentLost(f"{deadline.event} did not end within {deadline.seconds:.0f} s ({self.speed})")
            self._socket.settimeout(min(WATCH_SECONDS, deadline.remaining) or WATCH_SECONDS)
            try:
                block = self._socket.recv(BLOCK)
            except TimeoutError:
                self.alive()
                continue
            except OSError as error:
                self.alive()
                raise AgentLost(f"{deadline.event}: {error}") from error
            if not block:
                self.alive()
                raise AgentLost(f"{deadline.event}: QEMU closed the agent's port")
            self._left += block
