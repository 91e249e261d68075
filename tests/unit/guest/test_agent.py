"""The resident agent: its own program in a process of this host, and the lab's side of it."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.base.wait import ORDINARY
from lab.guest import agent, programs
from lab.guest.agent import Agent, AgentLost
from lab.guest.collect import EvidenceFolder
from lab.guest.programs import RemoteFailed
from tests.unit.guest.test_programs import imported

# What stands at the end of the agent's program, and what the tests have instead: a socket for the port.
MAIN = '\nif __name__ == "__main__":'
SERVE = "\nserve(int(sys.argv[1]), os.fdopen(os.dup(int(sys.argv[1])), 'wb'))\n"

PROGRAMS = {
    "echo": "import json, sys; print(json.dumps(json.loads(sys.argv[1])))",
    "remember": "import json, sys; sys.been = getattr(sys, 'been', 0) + 1; print(json.dumps(sys.been))",
    "keep": "import json; keep('kernel.log', b'\\xff\\n'); keep('suite/c', b''); print(json.dumps(2))",
    "complain": "import subprocess; subprocess.run(['sh', '-c', 'echo no such knob >&2; exit 3'], check=True)",
    "refuse": "import sys; sys.exit('there is no such file')",
    "crash": "nonsense",
    "full": "import os; os.write(os.open('/dev/full', os.O_WRONLY), b'x')",
    "die": f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})",
    "mask": "import json, os; print(json.dumps(os.umask(0)))",
    "hang": "import time; time.sleep(60)",
    "long": "import json; print(json.dumps('x' * 300_000))",
}


@dataclass
class Port:
    """A socket, at which QEMU would be, and what is to be at its other side."""

    path: Path
    ends: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen(1)

    def connect(self) -> tuple[Agent, socket.socket]:
        """The lab's side, and the guest's end."""
        made = Agent(self.path, alive=lambda: None, speed=ORDINARY)
        end, _ = self._listening.accept()
        self.ends += [end]
        return made, end

    def close(self) -> None:
        for end in [*self.ends, self._listening]:
            end.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path / "agent")
    yield made
    made.close()


@contextmanager
def serving(end: socket.socket) -> Iterator[None]:
    """The agent's program in a process of its own, with this socket as its port."""
    text = programs.read_loader()
    assert MAIN in text
    command = [sys.executable, "-I", "-S", "-c", text.partition(MAIN)[0] + SERVE, str(end.fileno())]
    with subprocess.Popen(command, pass_fds=[end.fileno()], start_new_session=True, umask=0o077) as process:
        yield
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def resident(port: Port, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """An agent in a process of its own, with the programs above."""
    monkeypatch.setattr(programs, "read_sources", lambda: PROGRAMS)
    made, end = port.connect()
    with serving(end):
        made.sync()
        made.load()
        yield made


def call(resident: Agent, *names: str, seconds: float = 20.0) -> list[object]:
    return resident.call([(name, {"of": name}) for name in names], seconds=seconds)


def once(name: str) -> object:
    """What comes of a program that runs without an agent."""
    calls = json.dumps([(name, base64.b64encode(PROGRAMS[name].encode()).decode(), "{}")])
    command = [sys.executable, "-I", "-S", "-c", programs.read_loader(), "once", calls]
    done = subprocess.run(command, capture_output=True, text=True, check=True, umask=0o077)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_programs_run_one_after_another_and_leave_nothing_in_the_agent(resident: Agent, tmp_path: Path) -> None:
    assert call(resident, "echo", "remember", "remember") == [{"of": "echo"}, 1, 2]
    assert call(resident, "remember") == [1]
    assert call(resident, "long") == ["x" * 300_000]
    # Files come as they are.
    keep = EvidenceFolder(tmp_path / "cell").keep
    assert resident.call([("keep", {})], seconds=20, keep=keep) == [2]
    assert (tmp_path / "cell/kernel.log").read_bytes() == b"\xff\n"
    assert (tmp_path / "cell/suite/c").read_bytes() == b""
    # They have the usual umask whatever carries them: what they make is for the suite's user to read.
    assert call(resident, "mask", "mask") == [0o022, 0o022]
    assert once("mask") == {"results": [0o022]}
    assert once("full") == {"failed": "full: [Errno 28] No space left on device"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("complain", "sh -c .*no such knob"),
        ("refuse", "`refuse` in the guest failed: refuse: there is no such file$"),
        ("crash", "Traceback.*name 'nonsense' is not defined"),
        ("full", "`full` in the guest failed: full: .*No space left on device$"),
        ("die", "`die` in the guest failed: it was ended"),
        ("keep", r"nobody asked for the file 'kernel\.log'"),
    ],
)
def test_a_program_that_fails_says_why_and_the_agent_goes_on(resident: Agent, name: str, message: str) -> None:
    with pytest.raises(RemoteFailed, match=re.compile(message, re.DOTALL)):
        call(resident, name)
    assert call(resident, "echo") == [{"of": "echo"}]


def test_what_an_earlier_life_sent_is_no_answer(resident: Agent, port: Port) -> None:
    assert call(resident, "echo") == [{"of": "echo"}]
    answers = "".join(f'{{"id": {number}, "results": [1]}}\n' for number in range(9))
    # The agent's end of the port is open in this process, too.
    port.ends[-1].sendall(f'{answers}{{"token": "earlier"}}\nthe beginning of a li'.encode())
    resident.sync()
    assert call(resident, "echo") == [{"of": "echo"}]


def test_what_was_sent_to_an_earlier_life_is_no_request() -> None:
    host, guest = socket.socketpair()
    with host, guest, serving(guest), host.makefile("rb") as answers:

        def send(**request: object) -> None:
            host.sendall(json.dumps(request).encode() + b"\n")

        def receive() -> object:
            return json.loads(next(line for line in answers if line.strip()))

        send(token="earlier")
        assert receive() == {"token": "earlier"}
        send(token="this", id=1, programs=PROGRAMS)  # It is not this life's yet.
        send(token="this")
        assert receive() == {"token": "this"}
        send(token="this", id=1, programs=PROGRAMS)
        assert receive() == {"id": 1, "results": []}
        for piece in (b"5\n", b'"token"\n', b"[]\n", b"{}\n", b'\xff"}\n', b'{"token": "x", "id"\n'):
            host.sendall(piece)
        send(token="earlier", id=2, calls=[["remember", "{}"]])
        # With the same number, an answer to the late request would come first.
        send(token="this", id=2, calls=[["echo", "{}"]])
        assert receive() == {"id": 2, "results": [{}]}


def test_a_program_is_waited_for_up_to_its_limit(resident: Agent) -> None:
    with pytest.raises(AgentLost, match=r"`hang` in the guest did not end within 1 s"):
        call(resident, "hang", seconds=1.0)


def test_the_end_of_the_machine_is_the_error(port: Port, tmp_path: Path) -> None:
    with pytest.raises(AgentLost, match=r"cannot be opened: .*No such file"):
        Agent(tmp_path / "none", alive=lambda: None, speed=ORDINARY)
    made, end = port.connect()
    end.close()
    with pytest.raises(AgentLost, match=r"QEMU closed the agent's port|could not be sent"):
        made.sync()
    made, end = port.connect()
    gone = RuntimeError("the machine is gone")

    def alive() -> None:
        raise gone

    made.alive = alive
    with pytest.raises(RuntimeError, match="the machine is gone"):
        made.sync()


@pytest.mark.parametrize(
    ("constant", "value", "sent", "message"),
    [
        ("SYNC_SECONDS", 0.1, b"", "the guest's agent did not end within 0 s"),
        ("MOST_LINE", 1000, b"x" * 2000, "sent a line of more than"),
    ],
    ids=["silent", "endless line"],
)
def test_an_agent_without_an_answer_is_lost(
    port: Port, constant: str, value: float, sent: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, constant, value)
    made, end = port.connect()
    end.sendall(sent)
    with pytest.raises(AgentLost, match=message):
        made.sync()


def test_the_agent_has_imported_what_its_programs_import() -> None:
    loader = programs.read_loader()
    listed = re.search(r'MODULES = "([a-z ]+)"', loader)
    assert listed is not None
    used = {name for file in programs.files().values() for name in imported(file)}
    assert used <= {*listed[1].split(), *imported(programs.LOADER)}
    assert {*listed[1].split()} <= used
