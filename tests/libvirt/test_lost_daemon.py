"""libvirt's daemon goes away in the middle of a run."""

from collections.abc import Callable
from typing import Any, NoReturn

import libvirt
import pytest

from lab.lane.running import RunningLane
from lab.machine import connection as libvirt_connection
from lab.machine import leftovers
from lab.machine.leftovers import LeftBehind
from lab.plan import Cell
from lab.run import worker
from tests.builders.lab import ONE, Lab, RunCell, at, statuses


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
    [reason] = run.cells[0].retried
    assert "the machine of debian-13 can no longer be asked about" in reason
    assert run.cells[1].retried == []
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

    def say(_lane: str, text: str) -> None:
        # Once: whoever interrupts twice does not wait for the end of the run.
        if text == "waiting for libvirt to come back" and not told:
            told.append(text)
            interrupt()

    lab.cell = at("debian-13/stock", daemon.goes(refusals=10**9))
    monkeypatch.setattr(lab.heard, "lane", say)
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
