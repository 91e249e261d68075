"""A lane whose guest has a resident agent: when it is met, kept and left."""

from collections.abc import Callable
from typing import Any

import pytest

from lab.guest.agent import AgentLost
from lab.guest.programs import RemoteFailed
from lab.guest.session import Session
from lab.lane import guest as lane_guest
from lab.lane.cell import CellRunner
from tests.builders.guests import NEW, RESTORED, Bench, cell, fails


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
    answers: list[Callable[[], object]] = []

    def meet(_path: object, **_: object) -> Stand:
        return Stand(bench.machine, answers.pop(0) if answers else lambda: None)

    bench.machine.agent = bench.folder / "agent"
    monkeypatch.setattr(lane_guest, "Agent", meet)
    monkeypatch.setattr(Session, "wait_open", lambda *_: bench.machine.do("SSH answers"))
    run: Any = lambda _session, _command, **_: bench.machine.do("start agent")  # noqa: E731
    monkeypatch.setattr(Session, "run", run)
    return answers


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
    assert stored.info().agent
    served.deploy(NEW)
    bench.machine.did.clear()
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == ["load build-0", "sync", "suite stock"]
    assert served.record().agent
    bench.machine.did.clear()
    bench.machine.set_up_disk()
    again = bench.service()
    again.start()
    assert bench.machine.did[-2:] == ["resume", "sync"]
    assert (again.record().agent, again.record().stored_build) == (True, True)


@pytest.mark.parametrize("has_agent", [False, True], ids=["stored without one", "path too long"])
def test_a_stored_boot_has_no_agent(bench: Bench, answers: list[Callable[[], object]], has_agent: bool) -> None:
    if has_agent:
        bench.service().start()
        bench.machine.did.clear()
        bench.machine.agent = None
    else:
        bench.store()
    served = bench.service()
    served.start()
    assert bench.machine.did == [*RESTORED, "SSH answers"]
    assert not served.record().agent


def test_a_dead_agent_is_a_fault_of_its_lane(bench: Bench, answers: list[Callable[[], object]]) -> None:
    answers.append(fails(AgentLost("no answer")))
    with pytest.raises(AgentLost):
        bench.service().start()
    bench.machine.when["start agent"] = fails(RemoteFailed("it has no python3\nat all"))
    with pytest.raises(RemoteFailed):
        bench.service().start()
    assert bench.states.find() is None


def test_a_silent_agent_is_back_after_the_next_load(bench: Bench, answers: list[Callable[[], object]]) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    agent: Any = served.guest.session.agent
    agent.answers = fails(AgentLost("the guest's agent did not end within 30 s"))
    bench.machine.did.clear()
    runner = CellRunner(served)
    with pytest.raises(AgentLost):
        runner.run(cell(NEW), bench.folder / "cell")
    agent.answers = lambda: None
    runner.run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == ["load build-0", "load build-0", "sync", "suite stock"]
    assert served.record().agent


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "path too long"])
def test_a_guest_may_boot_without_agent(bench: Bench, answers: list[Callable[[], object]], cold: bool) -> None:
    if not cold:
        bench.machine.agent = None
    served = bench.service(cold=cold, stores=False)
    served.start()
    assert bench.machine.did == ["start"]
    assert not served.record().agent
