"""Commands in a guest, for which a server on this host stands, and what is taken of what a guest prints."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn

import pytest

from lab.base.errors import LabError
from lab.base.wait import ORDINARY
from lab.catalog import remedies
from lab.guest import programs, remedy_script, session
from lab.guest.programs import RemoteFailed
from lab.guest.session import Session, SessionLost
from lab.machine.lane import Endpoint, LaneDied
from lab.machine.seed import make_keys
from tests.builders.lanes import FakeSession, prints
from tests.fleet.server import User, environment, paramiko_server

REMEDY = remedies.find_remedy("userns-clone-on")


def dying(times: int) -> Callable[[], None]:
    """libvirt, which calls a dead machine alive so many times."""
    looks = iter(range(times))

    def alive() -> None:
        if next(looks, None) is None:
            raise LaneDied("the machine is gone")

    return alive


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "home")


@pytest.fixture
def guest(user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session with a server that runs commands on this host."""
    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    with paramiko_server(user, environment(user)) as port:
        made = Session(Endpoint(port, user.key, user.server_key), alive=lambda: None, speed=ORDINARY)
        yield made
        made.close()


class Link:
    """Passes on what comes to its port, until it stands still: then nobody reads any more."""

    def __init__(self, target: int) -> None:
        self.stands_still = threading.Event()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._sockets[0].getsockname()[1]
        threading.Thread(target=self._accept, args=(target,), daemon=True).start()

    def _accept(self, target: int) -> None:
        near, far = self._sockets[0].accept()[0], socket.create_connection(("127.0.0.1", target))
        self._sockets += [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while not self.stands_still.is_set() and (block := source.recv(4096)):
                sink.sendall(block)

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()


def without_server(alive: Callable[[], None]) -> Session:
    """A session with a guest on whose port nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    return Session(Endpoint(port, make_keys("client"), make_keys("host")), alive=alive, speed=ORDINARY)


# -- commands


def test_a_command_has_no_input_and_what_it_prints_is_whole(guest: Session) -> None:
    script = "cat; printf '\\303\\251\\377'; head -c 300000 /dev/zero | tr '\\0' x; echo apart >&2; exit 3"
    ran = guest.run(script, seconds=20, check=False)
    assert (ran.status, ran.stdout, ran.stderr) == (3, "é\ufffd" + "x" * 300_000, "apart\n")
    # A program may close its output and go on.
    assert guest.run("exec >&- 2>&-; sleep 0.3; exit 4", seconds=20, check=False).status == 4


def test_a_command_that_fails_is_named_and_what_it_printed_is_cut(guest: Session) -> None:
    with pytest.raises(RemoteFailed, match=r"^`false` in the guest: exit status 1$"):
        guest.run("false", seconds=5)
    with pytest.raises(RemoteFailed, match="more characters") as failed:
        FakeSession(prints("x" * 10 * programs.MOST_SHOWN, status=1)).run("true", seconds=5)
    assert len(str(failed.value)) < programs.MOST_SHOWN + 500


def test_a_command_that_prints_too_much_is_a_fault_of_the_guest(
    guest: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST_BYTES", 100_000)
    with pytest.raises(RemoteFailed, match="`large` in the guest printed more than the lab accepts"):
        guest.run("head -c 500000 /dev/zero", seconds=20, name="large")


@pytest.mark.parametrize("script", ["sleep 2", "exec >&- 2>&-; sleep 2"], ids=["silent", "closed its output"])
def test_a_command_ends_at_its_limit_and_with_the_machine(
    guest: Session, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    with pytest.raises(SessionLost, match=r"did not end within 0 s \(this host's speed is not known\)"):
        guest.run(script, seconds=0.2)
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.05)
    guest.alive = dying(2)
    with pytest.raises(LaneDied, match=r"^the machine is gone$"):
        guest.run(script, seconds=60)


@pytest.mark.parametrize(
    ("dies_after", "error", "message"),
    [
        # libvirt notices the machine's end a moment later.
        (3, LaneDied, "^the machine is gone$"),
        (10**6, SessionLost, "SSH (broke|closed) during `sleep 2`"),
    ],
)
def test_a_broken_connection_is_the_machine_s_end_or_else_its_own(
    guest: Session, monkeypatch: pytest.MonkeyPatch, dies_after: int, error: type[Exception], message: str
) -> None:
    guest.wait_open(60)
    guest.alive = dying(dies_after)
    if dies_after == 3:
        monkeypatch.setattr(session, "NOTICE_SECONDS", 10.0)
    cut = threading.Timer(0.3, guest.log_in("lab").sock.close)
    cut.start()
    with pytest.raises(error, match=message):
        guest.run("sleep 2", seconds=60)
    cut.join()


# -- the input of a command

# More than a channel takes before the other side has read.
LARGE = bytes(range(256)) * 40_000


def write_large(stream: IO[bytes]) -> None:
    stream.write(LARGE)


def test_a_command_gets_its_input_while_it_prints(guest: Session) -> None:
    ran = guest.run("sha256sum; echo apart >&2", seconds=60, write_input=write_large)
    assert (ran.stdout.split()[0], ran.stderr) == (hashlib.sha256(LARGE).hexdigest(), "apart\n")
    assert len(guest.run("tr -c x x", seconds=60, write_input=write_large).stdout) == len(LARGE)


def test_a_command_that_ends_before_its_input_says_why(guest: Session, user: User) -> None:
    with pytest.raises(RemoteFailed, match=r"^`unpack` in the guest: exit status 3\nno space$"):
        guest.run("echo no space >&2; exit 3", seconds=60, name="unpack", write_input=write_large)
    assert guest.run("head -c 3 | wc -c", seconds=60, write_input=write_large).stdout.strip() == "3"
    assert user.logins == ["lab"]


def test_a_command_that_reads_no_input_ends_at_its_limit_and_with_the_machine(
    guest: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SessionLost, match=r"`sleep 2` did not end within 0 s"):
        guest.run("sleep 2", seconds=0.4, write_input=write_large)
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.05)
    guest.alive = dying(2)
    with pytest.raises(LaneDied, match=r"^the machine is gone$"):
        guest.run("sleep 2", seconds=60, write_input=write_large)
    assert not [thread for thread in threading.enumerate() if thread.name == "the input of `sleep 2`"]


def test_a_connection_that_breaks_under_the_input_is_a_lost_session(guest: Session) -> None:
    guest.wait_open(60)

    def write_half(stream: IO[bytes]) -> None:
        stream.write(LARGE[:1000])
        guest.log_in("lab").sock.close()
        stream.write(LARGE)

    with pytest.raises(SessionLost, match=r"SSH (broke|closed) during `cat >&2`"):
        guest.run("cat >&2", seconds=60, write_input=write_half)


def test_an_input_that_cannot_be_read_is_no_fault_of_the_guest(guest: Session, tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match=r"^the input of `cat` could not be read: .*No such file.*absent'$"
    ) as failed:
        guest.run(
            "cat", seconds=60, write_input=lambda stream: stream.write((tmp_path / "absent").read_bytes())
        )
    assert not isinstance(failed.value, SessionLost)
    assert guest.run("echo on", seconds=60).stdout == "on\n"


def test_a_guest_that_stands_still_under_the_input_keeps_nobody(guest: Session, tmp_path: Path) -> None:
    """Its host's socket is full then, in the middle of a packet."""
    with closing(Link(guest.endpoint.port)) as link:
        guest.use(replace(guest.endpoint, port=link.port))
        guest.wait_open(60)

        def write_to_still_guest(stream: IO[bytes]) -> None:
            link.stands_still.set()
            # The guest's word for how much it takes before it has read counts no more.
            stream.channel.out_window_size = len(LARGE)  # type: ignore[attr-defined]
            stream.write(LARGE)

        with pytest.raises(SessionLost, match="did not end within 0 s"):
            guest.run("cat >&2", seconds=0.4, write_input=write_to_still_guest)


def test_a_closed_port_is_the_machine_s_end_or_a_lost_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaneDied, match=r"^the machine is gone$"):
        without_server(dying(3)).run("true", seconds=5)
    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.0)
    with pytest.raises(SessionLost, match=r"SSH broke during `true`: .*Connection refused"):
        without_server(dying(10**6)).run("true", seconds=5)


# -- logins


def test_a_new_key_is_for_later_logins_and_breaks_no_connection(guest: Session, user: User) -> None:
    sudo = user.home / "bin" / "sudo"
    sudo.parent.mkdir()
    sudo.write_text('#!/bin/sh\necho "$*" >"$HOME/asked"\necho \'{"results": [{"renewed": true}]}\'\n')
    sudo.chmod(0o755)
    host_key = user.server_key
    renewed = guest.renew_key()
    assert renewed.host_key == host_key
    assert renewed.client_key.public in (user.home / "asked").read_text()
    # The server lets the old key in no more.
    user.key = renewed.client_key
    guest.run("true", seconds=5)
    guest.run("true", seconds=5, user="tester")
    assert user.logins == ["lab", "tester"]


def test_another_host_key_is_refused_before_anyone_logs_in(guest: Session, user: User) -> None:
    guest.use(replace(guest.endpoint, host_key=make_keys("another host")))
    with pytest.raises(SessionLost, match="showed a host key that is not its own"):
        guest.wait_open(60)
    assert user.logins == []


def test_a_guest_is_open_when_its_accounts_exist_and_log_in_again(guest: Session, user: User) -> None:
    guest.wait_open(60, listens=lambda: False)
    assert user.logins == ["lab"]
    for _ in range(2):
        guest.run("true", seconds=5, user="tester")
    guest.log_out("tester")
    guest.run("true", seconds=5, user="tester")
    assert user.logins == ["lab", "tester", "tester"]


@pytest.mark.parametrize("listening", [False, True], ids=["booting", "forked"])
def test_a_port_on_which_nothing_listens_is_asked_until_the_machine_s_end_is_known(listening: bool) -> None:
    with pytest.raises(LaneDied, match=r"^the machine is gone$"):
        without_server(dying(3)).wait_open(600, listens=lambda: listening)


@pytest.mark.parametrize(("pause", "least", "most"), [(10.0, 1, 1), (0.0, 3, 9)])
def test_a_silent_guest_is_asked(pause: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection that is given up counts against the lab once the server is up."""
    looks: list[object] = []

    def connect(address: object, _seconds: float) -> NoReturn:
        looks.append(address)
        raise ConnectionRefusedError

    silent = without_server(dying(4))
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(session, "LOOK_SECONDS", pause)
    with pytest.raises(LaneDied):
        silent.wait_open(600, listens=lambda: False)
    assert least <= len(looks) <= most


# -- the lab's programs


@pytest.mark.parametrize(
    "printed",
    [
        *("", "no JSON", "{}", "[]", "\x1b[2J", "[" * 100_000, f"[{'1' * 5000}]"),
        *('{"results": {}}', '{"results": [1, 2]}', '{"results": [1], "file": []}', '{"failed": [1]}'),
        *('{"file": "a", "content": "no base64"}', '{"file": "a", "content": "é"}', '{"file": "a"}'),
        *('{"file": "a", "content": 1}', '{"file": {"a": "\x1b[2J"}}', '{"file": null}'),
    ],
)
def test_programs_that_print_no_results_are_a_fault_of_the_guest(printed: str) -> None:
    with pytest.raises(RemoteFailed, match=r"facts`? in the guest printed (no )?JSON of ") as failed:
        FakeSession(prints(printed)).program("facts", {"sysctls": []}, seconds=5)
    assert "\x1b" not in str(failed.value)
    assert len(str(failed.value)) < programs.MOST_SHOWN + 500


def test_the_error_of_a_program_names_the_program() -> None:
    with pytest.raises(RemoteFailed, match=r"`facts` in the guest: exit status 1\nno space"):
        FakeSession(prints("no space", status=1)).program("facts", {}, seconds=5)
    failed = '{"failed": "probe: [Errno 28] No space left on device"}'
    with pytest.raises(RemoteFailed, match=r"`probe` in the guest failed: probe: .* No space left on device$"):
        FakeSession(prints(failed)).program("probe", {}, seconds=5)


def test_a_remedy_s_steps_are_read_and_half_a_character_can_be_written_to_a_file(tmp_path: Path) -> None:
    for steps in ("", '"runs": [],', '"runs": [{"command": "a", "status": 0}],'):
        printed = f'{{"results": [{{{steps} "changed": []}}]}}'
        with pytest.raises(RemoteFailed, match="`run_script` in the guest printed JSON of another form"):
            remedy_script.run_script(FakeSession(prints(printed)), REMEDY)
    step = '{"command": "a", "status": 0, "output": "no \\udcff UTF-8, \\ud83d\\ude00"}'
    printed = f'{{"results": [{{"runs": [{step}], "changed": []}}]}}'
    log = remedy_script.run_script(FakeSession(prints(printed)), REMEDY).log()
    (tmp_path / "log").write_text(log)
    assert "no ? UTF-8, \U0001f600" in log
