"""A lane whose guest has a resident agent: when it is met, kept and left."""

from collections.abc import Callable
from typing import Any

import pytest

from lab.guest import programs
from lab.guest.agent import AgentLost
from lab.guest.programs import RemoteFailed
from lab.guest.session import Session
from lab.lane import guest as lane_guest
from lab.lane.cell import CellRunner
from lab.lane.guest import LaneGuest
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.states import StateInfo
from tests.builders.guests import NEW, RESTORED, Bench, Guest, cell, fails


class Stand:
    """An agent that notes in its machine what it is asked; `answers` may raise."""

    def __init__(self, machine: Any, answers: Callable[[], object]) -> None:
        self.machine, self.answers = machine, answers

    def sync(self) -> None:
        self.answers()
        self.machine.do("sync")

    def load(self) -> None:
        self.machine.do("give programs")

    def close(self) -> None:
        self.machine.do("leave")


@pytest.fixture
def answers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Let lanes have agents. What is in the list says how the next of them answers."""
    found: list[Callable[[], object]] = []

    def meet(_path: object, **_: object) -> Stand:
        return Stand(bench.machine, found.pop(0) if found else lambda: None)

    bench.machine.agent = bench.folder / "agent"
    monkeypatch.setattr(lane_guest, "Agent", meet)
    monkeypatch.setattr(Guest, "start_agent", LaneGuest.start_agent)
    monkeypatch.setattr(Session, "wait_open", lambda *_: bench.machine.do("SSH answers"))
    run: Any = lambda _session, _command, **_: bench.machine.do("start agent")  # noqa: E731
    monkeypatch.setattr(Session, "run", run)
    return found


STORED = [*RESTORED, "sync"]


def test_a_booted_guest_gets_an_agent(bench: Bench, answers: list[Callable[[], object]]) -> None:
    served = bench.service()
    served.start()
    # The lane goes on with the agent that it has.
    assert bench.machine.did == [
        *["start", "start agent", "sync", "give programs"],
        *["save boot", "suspend", "resume"],
    ]
    stored = bench.states.find()
    assert stored is not None
    assert stored.info().programs == programs.digest()
    served.deploy(NEW)
    bench.machine.did.clear()
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == ["load build-0", "sync", "suite stock"]
    served.store_deployment()
    assert served.record().agent
    bench.machine.did.clear()
    bench.machine.set_up_disk()
    again = bench.service()
    again.start()
    assert bench.machine.did[-2:] == ["resume", "sync"]
    assert (again.record().agent, again.record().stored_build) == (True, True)


def test_an_agent_with_older_programs_gets_those_of_this_lab(
    bench: Bench, answers: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.service().start()
    monkeypatch.setattr(programs, "digest", lambda: "newer")
    bench.machine.did.clear()
    bench.service().start()
    assert bench.machine.did == [*STORED, "give programs"]


def test_a_stored_guest_may_have_no_agent(bench: Bench, answers: list[Callable[[], object]]) -> None:
    bench.store()
    served = bench.service()
    served.start()
    assert bench.machine.did == [*RESTORED, "SSH answers"]
    assert not served.record().agent


@pytest.mark.parametrize("error", [RemoteFailed("it has no python3\nat all"), AgentLost("no answer")])
def test_without_agent_ssh_serves(bench: Bench, answers: list[Callable[[], object]], error: Exception) -> None:
    if isinstance(error, AgentLost):
        answers.append(fails(error))
    else:
        bench.machine.when["start agent"] = fails(error)
    served = bench.service()
    served.start()
    record = served.record()
    assert not record.agent
    assert record.note == f"no agent, SSH does its work: {str(error).splitlines()[0]}"
    stored = bench.states.find()
    assert stored is not None
    # Lanes that restore it will not look for one.
    assert stored.info() == StateInfo("boot", stored.info().client, stored.info().host)


def test_a_silent_agent_is_given_up(bench: Bench, answers: list[Callable[[], object]]) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    agent: Any = served.guest.session.agent
    agent.answers = fails(AgentLost("the guest's agent did not end within 30 s"))
    bench.machine.did.clear()
    runner = CellRunner(served)
    runner.run(cell(NEW), bench.folder / "cell")
    runner.run(cell(NEW), bench.folder / "cell")
    load = ["load build-0", "SSH answers", "suite stock"]
    assert bench.machine.did == ["load build-0", "leave", *load[1:], *load]
    assert "no agent, SSH does its work: the guest's agent" in served.record().note


def test_a_lane_that_forks_from_its_disk_boots_without_an_agent(
    bench: Bench, answers: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guest, "wait_up", lambda self: None)
    bench.machine.when["save build-0"] = fails(CheckpointFailed("QEMU's snapshot-save: no"))
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    monkeypatch.setattr("lab.machine.checkpoint.DiskCheckpoint.fork", lambda self: None)
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert not served.record().agent
    assert served.guest.session.agent is None


def test_cold_cells_have_no_agent(bench: Bench, answers: list[Callable[[], object]]) -> None:
    served = bench.service(cold=True, stores=False)
    served.start()
    assert bench.machine.did == ["start"]
    assert not served.record().agent


def test_a_path_may_be_too_long_for_an_agent(bench: Bench, answers: list[Callable[[], object]]) -> None:
    bench.machine.agent = None
    served = bench.service(stores=False)
    served.start()
    assert "would be too long" in served.record().note
