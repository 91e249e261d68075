"""A lane whose guest has a resident agent: when it is met, kept and left."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.guest import session
from lab.guest.agent import AgentLost
from lab.guest.programs import RemoteFailed
from lab.guest.session import Session
from lab.lane.cell import run_cell
from tests.builders.lanes import EMULATION, NEW, RESTORED, Bench, FakeGuest, cell, fails


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
        return Stand(bench.lane, answers.pop(0) if answers else lambda: None)

    bench.lane.port_of_agent = bench.folder / "agent"
    monkeypatch.setattr(session, "Agent", meet)
    monkeypatch.setattr(FakeGuest, "wait_open", lambda *_: bench.lane.do("SSH answers"))
    run: Any = lambda _session, _command, **_: bench.lane.do("start agent")  # noqa: E731
    monkeypatch.setattr(Session, "run", run)
    return answers


def test_a_booted_guest_gets_an_agent(bench: Bench, answers: list[Callable[[], object]]) -> None:
    served = bench.service()
    served.start()
    # The lane goes on with the agent that it has.
    assert bench.lane.did == [
        *["start", "start agent", "sync", "give programs"],
        *["save boot", "suspend", "resume"],
    ]
    stored = bench.states.find()
    assert stored is not None
    assert stored.info().agent
    served.deploy(NEW)
    bench.lane.did.clear()
    for name in ("first", "second"):
        run_cell(served, cell(NEW), bench.folder / name)
    # The first cell finds the guest as its checkpoint has it.
    assert bench.lane.did == ["suite stock", "load build-0", "sync", "suite stock"]
    assert served.record().agent
    bench.lane.did.clear()
    bench.lane.set_up_disk()
    again = bench.service()
    again.start()
    assert bench.lane.did[-2:] == ["resume", "sync"]
    assert (again.record().agent, again.record().stored_build) == (True, True)


@pytest.mark.parametrize("has_agent", [False, True], ids=["stored without one", "path too long"])
def test_a_stored_boot_has_no_agent(bench: Bench, answers: list[Callable[[], object]], has_agent: bool) -> None:
    if has_agent:
        bench.service().start()
        bench.lane.did.clear()
        bench.lane.port_of_agent = None
    else:
        bench.store()
    served = bench.service()
    served.start()
    assert bench.lane.did == [*RESTORED, "SSH answers"]
    assert not served.record().agent


def test_a_dead_agent_is_a_fault_of_its_lane(bench: Bench, answers: list[Callable[[], object]]) -> None:
    answers.append(fails(AgentLost("no answer")))
    with pytest.raises(AgentLost):
        bench.service().start()
    bench.lane.when["start agent"] = fails(RemoteFailed("it has no python3\nat all"))
    with pytest.raises(RemoteFailed):
        bench.service().start()
    assert bench.states.find() is None


def test_a_silent_agent_is_back_after_the_next_load(bench: Bench, answers: list[Callable[[], object]]) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    run_cell(served, cell(NEW), bench.folder / "first")
    agent: Any = served.session.agent
    agent.answers = fails(AgentLost("the guest's agent did not end within 30 s"))
    bench.lane.did.clear()
    with pytest.raises(AgentLost):
        run_cell(served, cell(NEW), bench.folder / "cell")
    agent.answers = lambda: None
    run_cell(served, cell(NEW), bench.folder / "cell")
    assert bench.lane.did == ["load build-0", "load build-0", "sync", "suite stock"]
    assert served.record().agent


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "path too long"])
def test_a_guest_may_boot_without_agent(bench: Bench, answers: list[Callable[[], object]], cold: bool) -> None:
    if not cold:
        bench.lane.port_of_agent = None
    served = bench.service(cold=cold, stores=False)
    served.start()
    assert bench.lane.did == ["start"]
    assert not served.record().agent


def test_each_fork_fits_the_limits_of_time_to_this_host(
    bench: Bench, answers: list[Callable[[], object]]
) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    # As when a boot of another lane was slower, or the host is busier now.
    bench.lane.acceleration = replace(EMULATION, kernel_seconds=80.0)
    run_cell(served, cell(NEW), bench.folder / "cell")
    agent: Any = served.session.agent
    assert served.session.speed == agent.speed == bench.lane.speed
