"""Machines that die, lanes that do not come up, and a daemon of libvirt that goes away."""

from collections.abc import Callable
from typing import Any, NoReturn

import libvirt
import pytest

from lab.base.activity import Progress
from lab.base.errors import LabError
from lab.guest.ready import CloudInitFailed
from lab.lane.running import RunningLane
from lab.machine import connection as libvirt_connection
from lab.machine import leftovers
from lab.machine.leftovers import LeftBehind
from lab.plan import Cell
from lab.run import worker
from tests.builders.lab import ONE, VARIANTS, Lab, RunCell, at, boots, statuses


def dies(running: RunningLane, _cell: Cell) -> NoReturn:
    running.lane.domain.destroy()
    running.lane.check_alive()
    raise AssertionError("it is dead")


def test_a_machine_that_dies_makes_its_cell_an_error_and_a_fresh_lane_runs_the_others(lab: Lab) -> None:
    lab.cell = at("debian-12/stock", dies)
    run = lab.run(retries=0)
    assert statuses(run) == {"debian-12": ["error", "pass"], "debian-13": ["pass", "pass"]}
    assert lab.lanes(of="debian-12") == [["stock"], ["max-userns-zero"]]
    assert len(lab.lanes(of="debian-13")) == 1
    dead = run.cells[0]
    assert dead.reason.startswith("the machine of debian-12 ")
    assert dead.reason.endswith("| Reached target")
    assert dead.evidence == ["cells/debian-12/stock/0.10.8/console.log"]
    assert (lab.folder / dead.evidence[0]).read_text().endswith("Reached target\n")
    assert run.exit_status() == 3


def test_on_a_dead_machine_no_further_cell_is_run_and_what_was_met_first_is_kept(lab: Lab) -> None:
    def run_cell(running: RunningLane, _cell: Cell) -> NoReturn:
        running.lane.domain.destroy()
        raise LabError("SSH broke")

    lab.cell = run_cell
    run = lab.run(guests=ONE, retries=0)
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert all(cell.reason.startswith("SSH broke\nthe machine of debian-13 ") for cell in run.cells)


def test_a_lane_that_does_not_come_up_has_served_nothing_and_is_not_in_the_record(lab: Lab) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        if len(lab.booted) == 1:
            raise LabError("no boot")

    lab.boot = boot
    run = lab.run(guests=ONE, jobs=1)
    assert lab.lanes() == [[], VARIANTS]
    assert [lane.guest for lane in run.run.lanes] == ONE


def test_a_failed_cloud_init_leaves_its_log_as_evidence_of_each_attempt(lab: Lab) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        raise CloudInitFailed("no module", evidence={"cloud-init.log": "the whole log"})

    lab.boot = boot
    run = lab.run(guests=ONE, retries=1)
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert len(lab.booted) == 2
    for cell in run.cells:
        logs = [file for file in cell.evidence if file.endswith("/cloud-init.log")]
        assert len(logs) == 2
        assert {(lab.folder / log).read_text() for log in logs} == {"the whole log"}


# -- libvirt's daemon goes away in the middle of a run


class Daemon:
    """libvirt's daemon. While it is away, machines live on and nobody can be asked about them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # How many attempts to connect fail before it is back.
        self.refusals = 0
        self.is_away = False
        self.ended: list[str] = []
        open_, destroy, state = libvirt.open, libvirt.virDomain.destroy, libvirt.virDomain.state

        def connect(uri: str) -> libvirt.virConnect:
            if self.is_away:
                self.refusals -= 1
                if self.refusals >= 0:
                    return open_("qemu:///system?socket=/no/such/socket")
                self.is_away = False
            return open_(uri)

        def unless_away(call: Callable[..., Any]) -> Callable[..., Any]:
            def ask(machine: libvirt.virDomain, *arguments: Any) -> Any:
                if self.is_away:
                    raise libvirt.libvirtError("client socket is closed")
                return call(machine, *arguments)

            return ask

        def end(lane: str, uri: str) -> None:
            self.ended.append(lane)
            destroy(open_(uri).lookupByName(lane))

        monkeypatch.setattr(libvirt, "open", connect)
        monkeypatch.setattr(libvirt.virDomain, "destroy", unless_away(destroy))
        monkeypatch.setattr(libvirt.virDomain, "state", unless_away(state))
        monkeypatch.setattr(leftovers, "end_machine", end)
        monkeypatch.setattr(libvirt_connection, "RETRY_SECONDS", 0.001)

    def goes(self, *, refusals: int) -> RunCell:
        """A cell in the middle of which the daemon dies; it is back after so many refusals."""

        def run(running: RunningLane, _cell: Cell) -> NoReturn:
            self.is_away, self.refusals = True, refusals
            running.lane.check_alive()
            raise AssertionError("nobody knows whether it is alive")

        return run


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    return Daemon(monkeypatch)


def test_a_daemon_that_dies_and_comes_back_costs_a_lane_and_no_cell(lab: Lab, daemon: Daemon) -> None:
    lab.cell = at("debian-13/stock", daemon.goes(refusals=3))
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    [reason] = run.cells[0].history.retried
    assert "the machine of debian-13 can no longer be asked about" in reason
    assert run.cells[1].history.retried == []
    # The machine that outlived its daemon was ended, without it.
    assert daemon.ended == [lab.booted[0][1]]
    assert (len(lab.booted), daemon.is_away) == (2, False)


def test_a_lost_daemon_makes_the_rest_errors(lab: Lab, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RESTART_SECONDS", 0.05)
    lab.cell = at("debian-13/stock", daemon.goes(refusals=10**9))
    run = lab.run(guests=ONE)
    daemon.is_away = False
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert all("cannot connect to" in cell.reason for cell in run.cells)


def test_an_interrupt_ends_the_wait_for_a_daemon(
    lab: Lab, daemon: Daemon, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def show(_lane: str, progress: Progress | None) -> None:
        # Once: whoever interrupts twice does not wait for the end of the run.
        if progress and progress.text == "waiting for libvirt to come back" and not told:
            told.append(progress.text)
            interrupt()

    lab.cell = at("debian-13/stock", daemon.goes(refusals=10**9))
    monkeypatch.setattr(lab.heard, "lane", show)
    run = lab.run(guests=ONE)
    daemon.is_away = False
    assert run.run.interrupted
    assert statuses(run) == {"debian-13": ["not-run", "not-run"]}


def test_an_orphaned_machine_is_ended_later(lab: Lab, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    end = leftovers.end_machine

    def not_without_daemon(lane: str, uri: str) -> None:
        if daemon.is_away:
            raise LeftBehind(f"the machine of {lane} could not be ended")
        end(lane, uri)

    monkeypatch.setattr(leftovers, "end_machine", not_without_daemon)
    lab.cell = at("debian-13/stock", daemon.goes(refusals=3))
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert daemon.ended == [lab.booted[0][1]]
    assert any("could not be ended" in note for note in lab.heard.notes)
