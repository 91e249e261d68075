"""What a broken connection to a guest is called, with a machine that is not there."""

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from fabric import Connection

from lab.base.speed import ORDINARY, Speed
from lab.base.wait import Deadline, wait_for
from lab.guest import programs, remedy_script, session, ssh
from lab.guest.programs import RemoteFailed
from lab.guest.session import Session
from lab.guest.ssh import Pulse, SessionLost
from lab.machine.lane import Endpoint, LaneDied
from lab.machine.seed import new_keys

# It listens on the guest's port, as QEMU does for as long as the machine is there.
FORWARDED = socket.create_server(("127.0.0.1", 0))


def endpoint() -> Endpoint:
    return Endpoint(FORWARDED.getsockname()[1], new_keys("client"), new_keys("host"))


def broken(alive_for: int) -> Session:
    """A session whose connections break. libvirt calls its machine alive so many times, and then dead."""
    asked = iter(range(alive_for))

    def alive() -> None:
        if next(asked, None) is None:
            raise LaneDied("the machine is gone")

    made = Session(endpoint(), alive=alive, speed=ORDINARY)

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
            [source] = connect_kwargs["auth_strategy"].get_sources()
            keys.append((user, source.pkey.get_base64()))
            self.client = paramiko.SSHClient()

        def open(self) -> None:
            pass

        def run(self, command: str, **_: object) -> Any:
            commands.append(command)
            return SimpleNamespace(exited=0, stdout='{"results": [{"renewed": true}]}', stderr="")

    monkeypatch.setattr(ssh, "Connection", Connection)
    first = endpoint()
    made = Session(first, alive=lambda: None, speed=ORDINARY)
    made.run("true", seconds=5)
    renewed = made.renew_key()
    made.run("false", seconds=5)
    made.run("true", seconds=5, user="tester")
    assert renewed.host_key == first.host_key
    assert renewed.client_key.public in commands[1]
    old, new = (each.client_key.public.split()[1] for each in (first, renewed))
    assert keys == [("lab", old), ("tester", new)]


def test_a_machine_whose_death_libvirt_notices_late_is_the_error_and_not_the_connection() -> None:
    with pytest.raises(LaneDied, match="the machine is gone"):
        broken(alive_for=2).run("true", seconds=5)


def test_a_connection_to_a_living_machine_that_breaks_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.2)
    with pytest.raises(SessionLost, match="SSH broke during `true`: Connection reset by peer"):
        broken(alive_for=1000).run("true", seconds=5)


def unreachable(alive: Callable[[], None] = lambda: None) -> Session:
    """A session with a guest on whose port nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    return Session(Endpoint(port, new_keys("client"), new_keys("host")), alive=alive, speed=ORDINARY)


@pytest.mark.parametrize("listening", [False, True], ids=["booting", "forked"])
def test_a_port_without_forwarding_is_given_up(listening: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "GONE_SECONDS", 0.0)
    with pytest.raises(
        LaneDied, match=r"no network: nothing listens on 127.0.0.1:\d+, so what forwarded it has ended"
    ):
        unreachable().wait_open(600, listens=lambda: listening)


def test_a_silent_guest_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection that is given up counts against the lab once the server is up."""
    looks: list[Endpoint] = []

    def shows_banner(endpoint: Endpoint, _speed: Speed) -> bool:
        looks.append(endpoint)
        return False

    monkeypatch.setattr(ssh, "shows_banner", shows_banner)
    with pytest.raises(LaneDied):
        unreachable(noticed_late(8)).wait_open(600, listens=lambda: False)
    assert len(looks) == 1
    monkeypatch.setattr(session, "LOOK_SECONDS", 0.0)
    with pytest.raises(LaneDied):
        unreachable(noticed_late(4)).wait_open(600, listens=lambda: False)
    assert len(looks) > 2


def noticed_late(times: int = 3) -> Callable[[], None]:
    """libvirt, which calls a dead machine alive a few times."""
    asked = iter(range(times))

    def alive() -> None:
        if next(asked, None) is None:
            raise LaneDied("the machine is gone")

    return alive


@pytest.mark.parametrize("listening", [False, True], ids=["booting", "forked"])
def test_a_port_that_closed_with_its_machine_is_told_as_the_machine_s_end(listening: bool) -> None:
    with pytest.raises(LaneDied, match=r"^the machine is gone$"):
        unreachable(noticed_late()).wait_open(600, listens=lambda: listening)


def test_a_broken_command_may_be_the_machine_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    with pytest.raises(LaneDied, match=r"SSH broke during `true`: .*; the machine is gone"):
        unreachable(noticed_late()).run("true", seconds=5)


def test_a_command_says_that_its_port_is_not_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    monkeypatch.setattr(session, "GONE_SECONDS", 0.0)
    with pytest.raises(LaneDied, match=r"SSH broke during `true`: .*; the guest has no network"):
        unreachable().run("true", seconds=5)


def printing(text: str, status: int = 0) -> Session:
    """A session with a guest that prints this, whatever it is asked."""
    made = Session(endpoint(), alive=lambda: None, speed=ORDINARY)
    done = SimpleNamespace(exited=status, stdout=text, stderr="")
    connect: Any = lambda _user: SimpleNamespace(run=lambda *_, **__: done)  # noqa: E731
    made._connection = connect  # type: ignore[method-assign]
    return made


class Silent:
    """A connection to a server that never answers, until the connection is closed."""

    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def global_request(self, kind: str, *, wait: bool) -> None:
        assert (kind, wait) == ("keepalive@openssh.com", True)
        assert self.is_closed.wait(20), "nobody closed the connection"

    def close(self) -> None:
        self.is_closed.set()


@pytest.fixture
def answering() -> Iterator[paramiko.Transport]:
    """A connection to a real server, which knows no such request and says so."""
    here, there = socket.socketpair()
    client, server = paramiko.Transport(here), paramiko.Transport(there)
    server.add_server_key(paramiko.Ed25519Key.from_private_key(StringIO(new_keys("host").private)))
    server.start_server(event=threading.Event(), server=paramiko.ServerInterface())
    client.start_client(timeout=20)
    yield client
    client.close()
    server.close()


def beats(connections: list[Any], seconds: float) -> Pulse:
    """A pulse that was checked for so long; what has answered by then has been heard."""
    pulse = Pulse(lambda: connections)
    for _ in range(int(seconds / ssh.ASK_SECONDS)):
        pulse.check(ssh.ASK_SECONDS)
        for each, thread in zip(connections, pulse._asking, strict=False):
            if not isinstance(each, Silent):
                thread.join(20)
    return pulse


def test_a_server_that_answers_is_waited_for(answering: paramiko.Transport) -> None:
    beats([answering], 100 * ssh.SILENT_SECONDS)


def test_a_server_that_answers_over_one_connection_is_there(answering: paramiko.Transport) -> None:
    silent = Silent()
    beats([silent, answering], 10 * ssh.SILENT_SECONDS)
    silent.close()


def test_a_server_that_is_silent_for_too_long_is_lost() -> None:
    silent = Silent()
    pulse = beats([silent], ssh.ASK_SECONDS + ssh.SILENT_SECONDS - 1)
    with pytest.raises(SessionLost, match="its SSH server did not answer for 90 s"):
        pulse.check(ssh.ASK_SECONDS)
    silent.close()


def test_a_command_in_a_guest_that_lost_its_network_ends_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Silent()

    class Connection:
        """As much of fabric's as a session asks for: a command that ends when the connection is closed."""

        transport = silent

        def __init__(self, *_: object, **__: object) -> None:
            self.client = paramiko.SSHClient()

        def open(self) -> None:
            pass

        def run(self, _command: str, **_: object) -> Any:
            assert silent.is_closed.wait(20), "nobody closed the connection"
            return SimpleNamespace(exited=-1, stdout="", stderr="")

    for name, seconds in (("WATCH", 0.01), ("NOTICE", 0.0)):
        monkeypatch.setattr(session, f"{name}_SECONDS", seconds)
    for name, seconds in (("ASK", 0.02), ("SILENT", 0.05)):
        monkeypatch.setattr(ssh, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(ssh, "Connection", Connection)
    made = Session(endpoint(), alive=lambda: None, speed=ORDINARY)
    with pytest.raises(SessionLost, match="during `the suite`: its SSH server did not answer for 0 s"):
        made.run("pytest", seconds=900, name="the suite")


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
        remedy_script.apply(printing(printed), "sysctl", "exit 0", about_user=False)


def test_half_a_character_of_a_guest_can_be_written_to_a_file(tmp_path: Path) -> None:
    step = '{"command": "a", "status": 0, "output": "no \\udcff UTF-8, \\ud83d\\ude00"}'
    printed = f'{{"results": [{{"steps": [{step}], "changed": []}}]}}'
    log = remedy_script.apply(printing(printed), "sysctl", "exit 0", about_user=False).log()
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


def commanding(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that runs its commands on this channel, with fabric's own connection."""
    made = Session(endpoint(), alive=lambda: None, speed=ORDINARY)
    monkeypatch.setattr(Connection, "open", lambda _self: None)
    monkeypatch.setattr(Connection, "create_session", lambda _self: channel)
    return made


def test_what_a_command_prints_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(iter(["é".encode(), b"\xff", b"x" * 1000]))
    assert commanding(channel, monkeypatch).run("true", seconds=5).stdout == "é\ufffd" + "x" * 1000


def test_a_command_that_prints_without_an_end_is_a_fault_of_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "MOST_BYTES", 100_000)
    channel = Channel(repeat(b"x" * 1000))
    with pytest.raises(RemoteFailed, match="`yes` in the guest printed more than the lab takes"):
        commanding(channel, monkeypatch).run("yes", seconds=5)
    assert channel.is_closed


def test_a_connection_that_breaks_while_a_command_prints_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_blocks() -> Iterator[bytes]:
        yield b"x"
        raise OSError("Connection reset by peer")

    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    with pytest.raises(SessionLost, match="SSH broke during `true`: Connection reset by peer"):
        commanding(Channel(broken_blocks()), monkeypatch).run("true", seconds=5)


class Server(paramiko.ServerInterface):
    """An SSH server that notes who logs in; `state` is what it shows at the time of a login."""

    def __init__(self) -> None:
        self.state = "before"
        self.logins: list[tuple[str, str]] = []

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_channel_request(self, _kind: str, _number: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Run a command on this host, unless it is to hang."""
        if command != b"hang":
            threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        shell = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert shell.stdin is not None
        assert shell.stdout is not None
        with suppress(BrokenPipeError):
            while block := channel.recv(2**16):
                shell.stdin.write(block)
        with suppress(BrokenPipeError):
            shell.stdin.close()
        channel.sendall(shell.stdout.read())
        channel.send_exit_status(shell.wait())
        channel.close()

    def check_auth_publickey(self, username: str, _key: paramiko.PKey) -> int:
        self.logins.append((username, self.state))
        return paramiko.common.AUTH_SUCCESSFUL


@pytest.fixture
def served() -> Iterator[tuple[Server, Endpoint, list[paramiko.Transport]]]:
    """An SSH server on this host, its endpoint, and its connections."""
    keys = new_keys("client"), new_keys("host")
    host_key = paramiko.Ed25519Key.from_private_key(StringIO(keys[1].private))
    server, transports = Server(), list[paramiko.Transport]()
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(accepted)
            transport.add_server_key(host_key)
            transport.start_server(event=threading.Event(), server=server)
            transports.append(transport)

    threading.Thread(target=accept, daemon=True).start()
    yield server, Endpoint(listening.getsockname()[1], *keys), transports
    listening.close()
    for each in transports:
        each.close()


Served = tuple[Server, Endpoint, list[paramiko.Transport]]


def wait_until(met: Callable[[], bool]) -> None:
    wait_for(lambda: met() or None, Deadline(20, "the server"), interval=0.01)


def test_a_user_who_arrives_logs_in_at_the_first_command_and_not_before(served: Served) -> None:
    server, endpoint, transports = served
    made = Session(endpoint, alive=lambda: None, speed=ORDINARY)
    made.arrive("tester")
    # The keys are exchanged: only the login is missing.
    wait_until(lambda: len(transports) == 1 and transports[0].initial_kex_done)
    assert server.logins == []
    server.state = "after"
    assert made._connection("tester").is_connected
    assert server.logins == [("tester", "after")]
    assert len(transports) == 1
    made.close()


def test_a_user_whose_connection_was_ended_meanwhile_logs_in_by_a_new_one(served: Served) -> None:
    server, endpoint, transports = served
    made = Session(endpoint, alive=lambda: None, speed=ORDINARY)
    made.arrive("tester")
    wait_until(lambda: len(transports) == 1 and transports[0].initial_kex_done)
    transports[0].close()
    assert made._connection("tester").is_connected
    assert (len(transports), server.logins) == (2, [("tester", "before")])
    made.close()


def test_a_user_who_arrived_and_was_not_needed_never_logs_in(served: Served) -> None:
    server, endpoint, transports = served
    made = Session(endpoint, alive=lambda: None, speed=ORDINARY)
    made.arrive("tester")
    wait_until(lambda: len(transports) == 1 and transports[0].initial_kex_done)
    made.close()
    wait_until(lambda: not transports[0].is_active())
    assert server.logins == []


def test_a_user_who_left_never_logs_in(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    server, endpoint, _ = served
    may_open, opens = threading.Event(), Connection.open

    def open_late(self: Connection) -> None:
        assert may_open.wait(20)
        opens(self)

    monkeypatch.setattr(Connection, "open", open_late)
    arrival = ssh.Arrival(endpoint, "tester", ORDINARY)
    arrival.leave()
    may_open.set()
    arrival._thread.join(20)
    assert (arrival._failed, server.logins) == (True, [])


def test_a_host_key_that_is_not_the_guest_s_is_refused_before_anyone_logs_in(served: Served) -> None:
    server, endpoint, _ = served
    other = Endpoint(endpoint.port, endpoint.client_key, new_keys("another host"))
    made = Session(other, alive=lambda: None, speed=ORDINARY)
    made.arrive("tester")
    with pytest.raises(paramiko.BadHostKeyException):
        made._connection("tester")
    assert server.logins == []
