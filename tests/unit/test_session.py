"""What a broken connection to a guest is called, and what is taken of what a guest prints."""

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from fabric import Connection

from lab.base.wait import ORDINARY
from lab.catalog import remedies
from lab.guest import programs, remedy_script, session
from lab.guest.programs import RemoteFailed
from lab.guest.session import Session, SessionLost
from lab.machine.lane import Endpoint, LaneDied
from lab.machine.seed import new_keys

# It listens on the guest's port, as QEMU does for as long as the machine is there.
FORWARDED = socket.create_server(("127.0.0.1", 0))
KEYS = new_keys("client"), new_keys("host")
REMEDY = remedies.find("userns-clone-on")


def dying(times: int) -> Callable[[], None]:
    """libvirt, which calls a dead machine alive so many times."""
    looks = iter(range(times))

    def alive() -> None:
        if next(looks, None) is None:
            raise LaneDied("the machine is gone")

    return alive


def session_with(alive: Callable[[], None] = lambda: None, *, forwarded: bool = True) -> Session:
    """A session with a guest on whose port something listens, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = (FORWARDED if forwarded else gone).getsockname()[1]
    return Session(Endpoint(port, *KEYS), alive=alive, speed=ORDINARY)


def broken(alive: Callable[[], None]) -> Session:
    """A session whose connections break."""
    made = session_with(alive)

    @contextmanager
    def unwatched() -> Iterator[None]:
        yield

    def connect(_user: str) -> None:
        raise paramiko.SSHException("Connection reset by peer")

    made._watched = unwatched  # type: ignore[method-assign]
    made._connection = connect  # type: ignore[method-assign,assignment]
    return made


def test_a_new_key_is_for_later_logins_and_breaks_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[str, str]] = []
    commands: list[str] = []

    class Connection:
        """As much of fabric's as a session asks for; it notes who logged in with which key."""

        transport = None

        def __init__(self, _host: str, *, user: str, connect_kwargs: dict[str, Any], **_: object) -> None:
            keys.append((user, connect_kwargs["pkey"].get_base64()))
            assert not connect_kwargs["allow_agent"] and not connect_kwargs["look_for_keys"]
            self.client = paramiko.SSHClient()

        def open(self) -> None:
            pass

        def run(self, command: str, **_: object) -> Any:
            commands.append(command)
            return SimpleNamespace(exited=0, stdout='{"results": [{"renewed": true}]}', stderr="")

    monkeypatch.setattr(session, "Connection", Connection)
    made = session_with()
    made.run("true", seconds=5)
    renewed = made.renew_key()
    made.run("false", seconds=5)
    made.run("true", seconds=5, user="tester")
    assert renewed.host_key == KEYS[1]
    assert renewed.client_key.public in commands[1]
    old, new = (pair.public.split()[1] for pair in (KEYS[0], renewed.client_key))
    assert keys == [("lab", old), ("tester", new)]


@pytest.mark.parametrize(
    ("forwarded", "dies_after", "kind", "message"),
    [
        # libvirt notices the machine's end a moment later.
        (True, 2, LaneDied, "^the machine is gone$"),
        (False, 3, LaneDied, "^the machine is gone$"),
        (True, 10**6, SessionLost, "SSH broke during `true`: Connection reset by peer"),
        (False, 10**6, SessionLost, "SSH broke during `true`: .*Unable to connect"),
    ],
)
def test_a_broken_command_names_the_machine_s_end_or_else_the_connection(
    forwarded: bool, dies_after: int, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dies_after > 3:
        monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    made = broken(dying(dies_after)) if forwarded else session_with(dying(dies_after), forwarded=False)
    with pytest.raises(kind, match=message):
        made.run("true", seconds=5)


@pytest.mark.parametrize("listening", [False, True], ids=["booting", "forked"])
def test_a_port_on_which_nothing_listens_is_asked_until_the_machine_s_end_is_known(listening: bool) -> None:
    with pytest.raises(LaneDied, match=r"^the machine is gone$"):
        session_with(dying(3), forwarded=False).wait_open(600, listens=lambda: listening)


@pytest.mark.parametrize(("pause", "least", "most"), [(10.0, 1, 1), (0.0, 3, 9)])
def test_a_silent_guest_is_asked_now_and_then(
    pause: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection that is given up counts against the lab once the server is up."""
    looks: list[Session] = []

    def shows_banner(asking: Session) -> bool:
        looks.append(asking)
        return False

    monkeypatch.setattr(Session, "_shows_banner", shows_banner)
    monkeypatch.setattr(session, "LOOK_SECONDS", pause)
    with pytest.raises(LaneDied):
        session_with(dying(4)).wait_open(600, listens=lambda: False)
    assert least <= len(looks) <= most


def printing(text: str, status: int = 0) -> Session:
    """A session with a guest that prints this, whatever it is asked."""
    made = session_with()
    done = SimpleNamespace(exited=status, stdout=text, stderr="")
    connect: Any = lambda _user: SimpleNamespace(run=lambda *_, **__: done)  # noqa: E731
    made._connection = connect  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "no JSON",
        "{}",
        "[]",
        '{"results": {}}',
        '{"results": [1, 2]}',
        "[" * 100_000,
        f"[{'1' * 5000}]",
        "\x1b[2J",
        '{"file": "a", "content": "no base64"}',
        '{"file": "a", "content": ""}',
        '{"file": "a", "content": "é"}',
        '{"file": "a", "content": null}',
        '{"file": "a", "content": 1}',
        '{"file": {"a": "\x1b[2J"}}',
        '{"file": null}',
        '{"content": null}',
        '{"failed": [1]}',
        '{"failed": null}',
        '{"results": [1], "file": []}',
        "null",
    ],
)
def test_programs_that_print_no_results_are_a_fault_of_the_guest(printed: str) -> None:
    with pytest.raises(RemoteFailed, match=r"facts`? in the guest printed (no )?JSON of ") as failed:
        printing(printed).program("facts", {"sysctls": []}, seconds=5)
    assert "\x1b" not in str(failed.value)
    assert len(str(failed.value)) < programs.MOST_SHOWN + 500


def test_what_a_command_printed_without_an_end_is_cut_in_its_error() -> None:
    with pytest.raises(RemoteFailed, match="more characters") as failed:
        printing("x" * 10 * programs.MOST_SHOWN, status=1).run("true", seconds=5)
    assert len(str(failed.value)) < programs.MOST_SHOWN + 500


def test_a_program_that_meets_a_full_disk_says_so_in_one_line() -> None:
    source = "import os; os.write(os.open('/dev/full', os.O_WRONLY), b'x')"
    loaded = json.dumps([["probe", base64.b64encode(source.encode()).decode(), "{}"]])
    command = [sys.executable, "-c", programs.loader(), "once", loaded]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == {"failed": "probe: [Errno 28] No space left on device"}
    with pytest.raises(RemoteFailed, match=r"`probe` in the guest failed: probe: .* No space left on device$"):
        printing(ran.stdout).program("probe", {}, seconds=5)


def test_the_error_of_a_program_names_the_program() -> None:
    with pytest.raises(RemoteFailed, match=r"`facts` in the guest: exit status 1\nno space"):
        printing("no space", status=1).program("facts", {}, seconds=5)


@pytest.mark.parametrize(
    "printed",
    [
        '{"results": [{}]}',
        '{"results": [{"steps": [], "changed": []}]}',
        '{"results": [{"steps": [{"command": "a", "status": 0}], "changed": []}]}',
    ],
    ids=["nothing", "no step", "no output"],
)
def test_a_remedy_s_script_that_tells_no_steps_is_a_fault_of_the_guest(printed: str) -> None:
    with pytest.raises(RemoteFailed, match="`run_script` in the guest printed JSON of another form"):
        remedy_script.run(printing(printed), REMEDY)


def test_half_a_character_of_a_guest_can_be_written_to_a_file(tmp_path: Path) -> None:
    step = '{"command": "a", "status": 0, "output": "no \\udcff UTF-8, \\ud83d\\ude00"}'
    printed = f'{{"results": [{{"steps": [{step}], "changed": []}}]}}'
    log = remedy_script.run(printing(printed), REMEDY).log()
    (tmp_path / "log").write_text(log)
    assert "no ? UTF-8, \U0001f600" in log


class Channel:
    """An SSH channel to a command that prints blocks, and then ends."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks = blocks
        self.is_closed = False

    def exec_command(self, _command: str) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        return next(self.blocks, b"")

    def recv_stderr(self, _size: int) -> bytes:
        return b""

    def exit_status_ready(self) -> bool:
        return True

    def recv_exit_status(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def commanding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Channel], Session]:
    """Makes a session that runs its commands on a channel, with fabric's own connection."""

    def make(channel: Channel) -> Session:
        monkeypatch.setattr(Connection, "open", lambda _self: None)
        monkeypatch.setattr(Connection, "create_session", lambda _self: channel)
        return session_with()

    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    monkeypatch.setattr(session, "MOST_BYTES", 100_000)
    return make


def test_what_a_command_prints_is_whole(commanding: Callable[[Channel], Session]) -> None:
    channel = Channel(iter(["é".encode(), b"\xff", b"x" * 1000]))
    assert commanding(channel).run("true", seconds=5).stdout == "é\ufffd" + "x" * 1000


def test_a_command_that_prints_without_an_end_is_a_fault_of_the_guest(
    commanding: Callable[[Channel], Session],
) -> None:
    channel = Channel(repeat(b"x" * 1000))
    with pytest.raises(RemoteFailed, match="`yes` in the guest printed more than the lab takes"):
        commanding(channel).run("yes", seconds=5)
    assert channel.is_closed


def test_a_connection_that_breaks_while_a_command_prints_is_lost(
    commanding: Callable[[Channel], Session],
) -> None:
    def broken_blocks() -> Iterator[bytes]:
        yield b"x"
        raise OSError("Connection reset by peer")

    with pytest.raises(SessionLost, match="SSH broke during `true`: Connection reset by peer"):
        commanding(Channel(broken_blocks())).run("true", seconds=5)


class Server(paramiko.ServerInterface):
    """An SSH server that lets one key in; the connections that it accepts."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.transports: list[paramiko.Transport] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint(self._listening.getsockname()[1], *KEYS)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                transport = paramiko.Transport(self._listening.accept()[0])
            except OSError:
                return
            transport.add_server_key(paramiko.Ed25519Key.from_private_key(StringIO(KEYS[1].private)))
            transport.start_server(event=threading.Event(), server=self)
            self.transports.append(transport)

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if key.get_base64() != KEYS[0].public.split()[1]:
            return paramiko.common.AUTH_FAILED
        self.logins.append(username)
        return paramiko.common.AUTH_SUCCESSFUL

    def close(self) -> None:
        self._listening.close()
        for transport in self.transports:
            transport.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_a_user_who_was_logged_out_logs_in_anew(server: Server) -> None:
    made = Session(server.endpoint, alive=lambda: None, speed=ORDINARY)
    assert made._connection("tester") is made._connection("tester")
    made.log_out("tester")
    assert made._connection("tester").is_connected
    assert server.logins == ["tester", "tester"]
    made.close()


def test_a_host_key_that_is_not_the_guest_s_is_refused_before_anyone_logs_in(server: Server) -> None:
    other = Endpoint(server.endpoint.port, KEYS[0], new_keys("another host"))
    with pytest.raises(SessionLost, match="showed a host key that is not its own"):
        Session(other, alive=lambda: None, speed=ORDINARY).wait_open(60)
    assert server.logins == []


def test_a_guest_is_open_when_its_server_shows_itself_and_its_accounts_exist(server: Server) -> None:
    made = Session(server.endpoint, alive=lambda: None, speed=ORDINARY)
    made.wait_open(60, listens=lambda: False)
    assert server.logins == ["lab"]
    made.close()
