import json
import secrets
import shutil
import socket
import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import libvirt
import psutil
import pytest

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.machine import leftovers
from lab.machine.connection import NoLibvirt
from lab.machine.leftovers import LeftBehind
from tests.builders.processes import LANE_HOLDER, other_process

# libvirt's own test driver: it answers like a daemon, and knows no domain of these names.
URI = "test:///default"


def lane(paths: Paths) -> AbstractContextManager[tuple[Path, int]]:
    return leftovers.make_lane_folder(paths, guest="debian-13", uri=URI)


def test_the_mark_is_there_for_as_long_as_the_lane(paths: Paths) -> None:
    with lane(paths) as (folder, port):
        mark = json.loads((folder / "lane.json").read_text())
        assert leftovers.list_lanes(paths) == [folder.name]
    assert folder.name.startswith("lab-debian-13-")
    assert mark == {"uri": URI, "port": port}
    assert leftovers.list_lanes(paths) == []
    # The folders of two lanes of one guest differ, and are removed when the lanes fail, too.
    with pytest.raises(KeyboardInterrupt), lane(paths) as (one, _), lane(paths) as (other, _):
        (one / "overlay.qcow2").touch()
        assert leftovers.list_lanes(paths) == sorted([one.name, other.name])
        raise KeyboardInterrupt
    assert leftovers.list_lanes(paths) == []


def test_reaping_leaves_the_lanes_of_living_labs(paths: Paths) -> None:
    # Nothing is made where no lab ever ran.
    assert (leftovers.reap_dead_lanes(paths), paths.state.exists()) == ([], False)
    with (
        leftovers.make_lane_folder(paths, guest="debian-12", uri=URI) as (ours, _),
        other_process(LANE_HOLDER, paths.state.parent) as (_, theirs),
    ):
        assert leftovers.reap_dead_lanes(paths) == []
        assert leftovers.list_lanes(paths) == sorted([ours.name, theirs])


NO_DAEMON = '{"uri": "test+bogus:///x", "port": 22100}'


def lane_of_a_dead_lab(paths: Paths, mark: str | None = NO_DAEMON) -> Path:
    """The folder of a lane whose lab is dead; with the usual mark, its libvirt cannot be asked."""
    folder = paths.make(paths.lanes) / "lab-debian-13-abc123"
    folder.mkdir()
    if mark is not None:
        (folder / "lane.json").write_text(mark)
    return folder


@pytest.mark.parametrize(
    "mark",
    [None, "", '{"uri": "qemu', NO_DAEMON],
    ids=["no mark", "empty", "unfinished", "its daemon is gone, too"],
)
def test_reaping_removes_a_dead_lane_whatever_its_mark_says(paths: Paths, mark: str | None) -> None:
    folder = lane_of_a_dead_lab(paths, mark)
    (paths.lanes / "notes").mkdir()
    assert leftovers.reap_dead_lanes(paths) == [folder.name]
    assert leftovers.list_lanes(paths) == []
    assert (paths.lanes / "notes").is_dir()


def test_a_lane_may_go_while_it_is_reaped(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    # The lab that owns a lane may remove it between any two steps of another lab that looks at it.
    folder = lane_of_a_dead_lab(paths, f'{{"uri": "{URI}", "port": 22100}}')
    monkeypatch.setattr(leftovers, "end_machine", lambda _lane, _uri: shutil.rmtree(folder))
    leftovers.reap_dead_lanes(paths)
    assert leftovers.list_lanes(paths) == []


class Process:
    """As much of a process as reaping asks of it."""

    def __init__(self, name: str, *command: str) -> None:
        self._name, self._command = name, list(command)
        self.ended = False

    def name(self) -> str:
        return self._name

    def cmdline(self) -> list[str]:
        return self._command

    def terminate(self) -> None:
        self.ended = True

    def wait(self, _seconds: float) -> None:
        pass


def test_reaping_ends_a_machine_without_daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lane_of_a_dead_lab(paths)

    def qemu(name: str) -> Process:
        return Process("qemu-system-x86", "qemu-system-x86_64", "-name", f"guest={name},debug-threads=on")

    running = [qemu("lab-debian-13-abc123"), qemu("lab-debian-13-abc1234"), Process("vi", f"guest={folder},")]
    monkeypatch.setattr(psutil, "process_iter", lambda: (process for process in running if not process.ended))
    assert leftovers.reap_dead_lanes(paths) == [folder.name]
    assert [process.ended for process in running] == [True, False, False]
    # One that cannot end keeps its lane.
    folder = lane_of_a_dead_lab(paths)
    monkeypatch.setattr(psutil, "process_iter", lambda: iter([qemu(folder.name)]))
    with pytest.raises(LeftBehind, match=f"the machine of {folder.name} could not be ended"):
        leftovers.reap_dead_lanes(paths)
    assert leftovers.list_lanes(paths) == [folder.name]


def test_a_daemon_that_stands_still_holds_no_command_up(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lane_of_a_dead_lab(paths, json.dumps({"uri": URI, "port": 22100}))
    goes_on = threading.Event()
    for question in ("lookupByName", "listAllDomains"):
        monkeypatch.setattr(libvirt.virConnect, question, lambda *_: goes_on.wait(60))
    monkeypatch.setattr("lab.machine.connection.ANSWER_SECONDS", 0.2)
    try:
        # Its processes are ended without the daemon.
        assert leftovers.reap_dead_lanes(paths) == [folder.name]
        with pytest.raises(NoLibvirt, match="waited 0 s for libvirt's answer"):
            leftovers.reap_unrecorded_machines(URI)
        assert not goes_on.is_set()
    finally:
        goes_on.set()


# -- ports

FIRST, LAST = 23460, 23462


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each search in three ports begins; what is left of the list begins at the first."""
    places: list[int] = []
    monkeypatch.setattr(secrets, "randbelow", lambda _count: places.pop(0) if places else 0)
    monkeypatch.setattr(leftovers, "FIRST_PORT", FIRST)
    monkeypatch.setattr(leftovers, "LAST_PORT", LAST)
    return places


def ports_of(paths: Paths, count: int = 1) -> list[int]:
    """The ports of so many lanes at once."""
    with ExitStack() as held:
        return [held.enter_context(lane(paths))[1] for _ in range(count)]


def test_the_search_begins_anywhere_and_goes_round_until_none_is_left(paths: Paths, begin: list[int]) -> None:
    begin += [1, 1, 1]
    assert ports_of(paths, 3) == [FIRST + 1, FIRST + 2, FIRST]
    with pytest.raises(LabError, match="no free port"):
        ports_of(paths, 4)
    # They were given back.
    assert leftovers.list_lanes(paths) == []
    assert ports_of(paths) == [FIRST]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_skipped(paths: Paths, begin: list[int], address: str) -> None:
    with socket.create_server((address, FIRST)):
        assert ports_of(paths) == [FIRST + 1]


def test_a_lane_keeps_mark_and_port_until_its_machine_has_ended(paths: Paths, begin: list[int]) -> None:
    with pytest.raises(LeftBehind), lane(paths) as (folder, _):
        raise LeftBehind("its QEMU still runs")
    assert (folder / "lane.json").is_file()
    assert ports_of(paths) == [FIRST + 1]
    assert leftovers.reap_dead_lanes(paths) == [folder.name]
    assert leftovers.list_lanes(paths) == []
    assert ports_of(paths) == [FIRST]
