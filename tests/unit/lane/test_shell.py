"""Shells and commands in the state of a cell, without a guest: what runs in it is run on this host."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base.activity import UNWATCHED, CancelToken, Task
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.base.wait import Speed
from lab.builds import rootfs
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Guest as GuestDefinition
from lab.guest import suite
from lab.guest.variant import NotInEffect
from lab.images import store
from lab.lane import running, shell
from lab.lane.shell import Entrance, LoginName
from lab.machine import acceleration
from lab.machine.lane import Endpoint
from lab.machine.seed import make_keys
from lab.plan import Cell
from tests.builders.guests import base_image
from tests.builders.lanes import EMULATION, Bench, FakeGuest, FakeSession, prints, put_stand_ins
from tests.builders.processes import on_terminal

DEFINITIONS = catalog.load_catalog()
BUILD = Wheel("0.10.8", "0.10.8")


def cell(variant: str = "stock") -> Cell:
    return Cell(DEFINITIONS.guest("debian-13"), DEFINITIONS.variant(variant), BUILD)


def made(folder: Path, variant: str = "stock") -> Entrance:
    endpoint = Endpoint(22100, make_keys("client"), make_keys("host"))
    return shell.make_entrance(endpoint, folder, cell(variant), speed=Speed(emulated=True))


@pytest.fixture
def way_in(tmp_path: Path) -> Entrance:
    """An entrance whose state this host can have, too."""
    state = f"cd {tmp_path} && exec env SEEN=yes"
    return made(tmp_path).model_copy(
        update={"state": state, "state_with_stdin": state, "working_folder": str(tmp_path)}
    )


def run_remotely(command: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run what ssh was to run, as a server does: by the user's shell."""
    return subprocess.run(["bash", "-c", command[-1]], input=stdin, capture_output=True, check=False)


# -- the entrance


def test_only_the_lanes_own_key_and_the_guests_own_host_key_are_used(tmp_path: Path) -> None:
    command = made(tmp_path).command(["true"])
    assert command[-2] == "tester@127.0.0.1"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert command[command.index("-i") + 1] == str(tmp_path / "key")
    assert f"UserKnownHostsFile={tmp_path / 'known_hosts'}" in command
    assert (tmp_path / "known_hosts").read_text().startswith("[127.0.0.1]:22100 ssh-ed25519 ")


def test_a_command_runs_in_the_state_of_the_tests_with_the_words_as_they_are(way_in: Entrance) -> None:
    script = 'pwd; echo "$SEEN" "$1"; echo apart >&2'
    ran = run_remotely(way_in.command(["sh", "-c", script, "sh", "a 'b' $c; d"]))
    folder = way_in.working_folder
    assert (ran.stdout.decode(), ran.stderr) == (f"{folder}\nyes a 'b' $c; d\n", b"apart\n")
    # It gives its status or its signal.
    for script, status in (("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)):
        ran = run_remotely(way_in.command(["sh", "-c", script]))
        assert (ran.returncode, ran.stderr) == (status, b"")


def test_standard_input_is_passed_only_if_there_is_one(way_in: Entrance) -> None:
    assert "-n" in way_in.command(["cat"])
    piped = way_in.command(["cat"], stdin=True)
    assert "-n" not in piped
    assert run_remotely(piped, b"\0\xff bytes").stdout == b"\0\xff bytes"
    ran = run_remotely(way_in.shell(terminal=False), b"echo $SEEN\nexit 5\n")
    assert (ran.stdout, ran.stderr, ran.returncode) == (b"yes\n", b"", 5)
    assert "-t" in way_in.shell(user="root")


def test_a_shell_has_the_suites_command_in_its_history_and_nothing_of_that_in_its_environment(
    way_in: Entrance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HISTFILE", raising=False)
    screen, status = on_terminal(["bash", "-c", way_in.shell()[-1]], keys=b"history\nenv\nexit 3\n")
    lines = [line.strip() for line in screen.splitlines()]
    numbered = [line.partition("  ")[2] for line in lines if line[:1].isdigit()]
    # Arrow up shows the last one first.
    assert numbered[:3] == [way_in.one_test, way_in.suite, "history"]
    assert "SEEN=yes" in lines
    assert not any(line.startswith("PROMPT_COMMAND=") for line in lines)
    assert status == 3


def test_the_suites_command_is_what_a_cell_runs(tmp_path: Path) -> None:
    session = FakeSession(prints("124 450\n"))
    denied = cell("apparmor-userns-deny")
    with suppress(suite.SuiteBroken):  # There is no report.
        suite.execute_suite(session, BUILD, denied.variant, speed=Speed(emulated=True))
    way_in = made(tmp_path, denied.variant.name)
    assert f"({way_in.state} {way_in.suite}) >" in session.commands[0]


@pytest.mark.parametrize(
    ("variant", "user", "stdin", "login", "begins", "has"),
    [
        ("stock", "tester", False, "tester", "exec 3", "exec env "),
        # A suite that runs as root gets its shell by the administrator.
        ("as-root", "tester", False, "lab", "sudo -n -H sh -c ", "exec env "),
        # Root is not confined by what the variant puts the tests under.
        ("apparmor-kvm-deny", "tester", False, "tester", "exec 3", "exec aa-exec -p lab-without-kvm -- "),
        ("apparmor-kvm-deny", "root", False, "lab", "sudo -n -H sh -c ", "exec id"),
        # A container gets standard input only if the command does.
        ("podman", "tester", False, "tester", "exec 3", "exec lab-container env "),
        ("podman", "tester", True, "tester", "exec 3", "exec env LAB_STDIN=1 lab-container env -u LAB_STDIN "),
    ],
)
def test_who_logs_in_and_what_confines_a_command(
    tmp_path: Path, variant: str, user: LoginName, stdin: bool, login: str, begins: str, has: str
) -> None:
    *_, whom, script = made(tmp_path, variant).command(["id"], user=user, stdin=stdin)
    assert (whom, script.startswith(begins), has in script) == (f"{login}@127.0.0.1", True, True)


# -- bringing a guest there


class Host:
    """A host whose lanes are machines that note what is done to them. `benches` has one for each."""

    def __init__(self, paths: Paths, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths, self.folder, self.monkeypatch = paths, folder, monkeypatch
        self.benches: list[Bench] = []
        self._numbers = count()
        libvirt: Any = SimpleNamespace(
            getCapabilities=lambda: "<capabilities/>",
            getVersion=lambda: 1,
            getLibVersion=lambda: 1,
            getURI=lambda: "test:///",
        )
        self.libvirt = libvirt
        patch = monkeypatch.setattr
        patch(shell, "hold_lane_connection", self._connection(libvirt))
        patch(store, "ensure_image", lambda *_: base_image(Path("base")))
        patch(acceleration, "decide_acceleration", lambda *_: EMULATION)
        patch(rootfs, "make", self._rootfs)
        patch(running, "open_lane", self._open)
        patch(running, "Session", self._session)
        put_stand_ins(monkeypatch)
        patch(Wheel, "fetch", lambda build, *_: self._fetch(build))

    @property
    def did(self) -> list[list[str]]:
        """What was done to each lane's machine, in order."""
        return [bench.lane.did for bench in self.benches]

    def open(self, variant: str = "stock") -> list[str]:
        """Open a command's way in and close it again."""
        with shell.enter_guest(cell(variant), self.paths, "test:///", UNWATCHED) as opened:
            return opened.entrance.command(["true"])

    def _session(self, *_: object, alive: Callable[[], None], **__: object) -> FakeGuest:
        self.alive = alive
        return FakeGuest(self.benches[-1].lane)

    def _connection(self, libvirt: Any) -> Any:
        @contextmanager
        def connection(_uri: str) -> Iterator[Any]:
            yield libvirt

        return connection

    def _rootfs(self, folder: Path, *_: object) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").write_text("{}")
        return folder

    @contextmanager
    def _open(self, *_: object, guest: GuestDefinition, **__: object) -> Iterator[Any]:
        bench = Bench(self.paths, self.folder / f"lane-{next(self._numbers)}", EMULATION)
        bench.lane.guest = guest
        self.benches.append(bench)
        try:
            yield bench.lane
        finally:
            bench.lane.stop()

    def _fetch(self, build: Wheel) -> dict[str, Path]:
        file = self.folder / f"{build.name}.whl"
        file.write_text(build.name)
        return {file.name: file}


@pytest.fixture
def host(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(paths, tmp_path, monkeypatch)


DEPLOYED = ["adopt", "start paused", "load build", "resume"]


def test_the_first_shell_stores_the_deployed_build_and_later_ones_restore_it(host: Host) -> None:
    host.open()
    boot, deployed = ["start", "save boot", "suspend", "resume"], ["save build", "suspend", "resume"]
    assert host.did == [[*boot, "deploy 0.10.8", *deployed, "stop"]]
    stored = {file: file.read_bytes() for file in host.paths.states.rglob("*.qcow2")}
    host.benches.clear()
    host.open()
    assert host.did == [[*DEPLOYED, "stop"]]
    # A lane has a copy of its own.
    assert {file: file.read_bytes() for file in host.paths.states.rglob("*.qcow2")} == stored


def test_a_variant_of_the_kernels_command_line_neither_uses_a_stored_state_nor_leaves_one(host: Host) -> None:
    host.open()
    host.benches.clear()
    # These facts are those of a guest that was booted without them.
    with pytest.raises(NotInEffect):
        host.open("apparmor-off")
    assert host.did == [["start", "deploy 0.10.8", "stop"]]
    # What makes no sense on the guest is told before anything is deployed.
    host.benches.clear()
    with pytest.raises(NotApplicable, match="podman"):
        host.open("podman")
    assert not any("deploy" in step for did in host.did for step in did)


def test_while_a_guest_is_brought_up_it_is_asked_whether_somebody_still_waits(host: Host) -> None:
    token = CancelToken()
    with shell.enter_guest(cell(), host.paths, "test:///", Task(check=token.check)):
        host.alive()
        token.cancel()
        with pytest.raises(LabError, match="interrupted"):
            host.alive()
