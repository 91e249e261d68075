"""Bugs of the lab: what raises something that nobody expected costs its own cell, and the run ends with 4."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from lab.record import CellResult, RemedyOutcome, RunResult, Status
from lab.run.decisions import Decisions
from tests.builders.lab import ONE, PASSED, Lab, at, boots, statuses
from tests.libvirt.test_trials_of_a_cell import blocked_and_found

BUG = TypeError("'NoneType' object is not subscriptable")
WHERE = "debian-13/stock"


def raises(*_arguments: Any, **_more: Any) -> NoReturn:
    raise BUG


def traceback_of(lab: Lab, cell: CellResult) -> str:
    [name] = [name for name in cell.evidence if name.endswith("traceback.txt")]
    return (lab.folder / name).read_text()


def is_bug_of(lab: Lab, cell: CellResult) -> bool:
    """Whether the cell is the error of this bug, with its traceback, and was not tried again."""
    assert "TypeError: 'NoneType' object is not subscriptable" in cell.reason and "report it" in cell.reason
    assert "in raises" in traceback_of(lab, cell)
    return (cell.status, cell.bug, cell.retried) == (Status.ERROR, True, [])


def test_a_bug_in_one_cell_is_that_cells_error_and_its_lane_serves_the_next_one(lab: Lab) -> None:
    lab.cell = at(WHERE, raises)
    run = lab.run()
    assert statuses(run) == PASSED | {"debian-13": ["error", "pass"]}
    assert is_bug_of(lab, run.cells[2])
    assert lab.lanes() == [["stock", "max-userns-zero"]]
    assert (run.exit_status(), RunResult.read(lab.folder).exit_status()) == (4, 4)


def test_a_machine_that_died_with_a_bug_is_replaced_and_the_bug_is_not_tried_again(lab: Lab) -> None:
    def die(running: Any, _cell: Any) -> NoReturn:
        running.lane.domain.destroy()
        raises()

    lab.cell = at(WHERE, die)
    run = lab.run(guests=ONE)
    assert is_bug_of(lab, run.cells[0])
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]


def test_a_bug_while_a_lane_is_opened_is_the_error_of_the_cells_that_no_other_lane_takes(lab: Lab) -> None:
    lab.boot = lambda running: raises() if running.lane.guest.name == "debian-13" else boots(running)
    run = lab.run()
    assert statuses(run) == PASSED | {"debian-13": ["error", "error"]}
    assert all(is_bug_of(lab, cell) for cell in run.cells[2:])


def test_a_build_with_a_damaged_wheel_costs_the_cells_of_that_build(lab: Lab) -> None:
    lab.deploy = lambda _running, _build: raises()
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert all(is_bug_of(lab, cell) for cell in run.cells) and len(lab.booted) == 1


@pytest.mark.parametrize("where", ["remedies.RemedyAttempt.run", "remedies.Trials.all"])
def test_a_bug_in_a_trial_keeps_the_result(lab: Lab, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(f"lab.trials.{where}", raises)
    lab.cell = at("debian-13/max-userns-zero", blocked_and_found)
    run = lab.run(guests=ONE, remedies=True, jobs=1)
    assert statuses(run) == {"debian-13": ["pass", "xfail"]}
    cell = run.cells[1]
    assert cell.has_more_to_try and run.exit_status() == 4
    if where.endswith("run"):
        assert {(remedy.result, remedy.bug) for remedy in cell.remedies} >= {(RemedyOutcome.ERROR, True)}
        tried = [name for name in cell.evidence if name.endswith("traceback.txt")]
        assert [name.split("/")[-2] for name in tried] == sorted(
            remedy.name for remedy in cell.remedies if remedy.bug
        )
    else:
        assert cell.bug and "TypeError" in cell.retried[0] and "in raises" in traceback_of(lab, cell)


def test_a_result_that_cannot_be_recorded_is_its_cells_error(lab: Lab) -> None:
    endless = {"seconds": {"suite": float("inf")}}
    lab.cell = at(WHERE, lambda _running, cell: cell.result(Status.PASS).model_copy(update=endless))
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["error", "pass"]}
    assert run.cells[0].bug and "ValidationError" in run.cells[0].reason


@pytest.mark.parametrize("what", ["lane", "cell", "note", "time_left"])
def test_an_observer_s_bug_decides_no_cell(lab: Lab, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(lab.heard, what, raises)
    with pytest.raises(TypeError) as raised:
        lab.run()
    assert raised.value is BUG
    recorded = RunResult.read(lab.folder)
    assert statuses(recorded) == PASSED and recorded.run.finished is not None


def test_a_bug_that_costs_no_cell_is_told_at_the_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.lane.running.RunningLane.store_deployment", raises)
    with pytest.raises(TypeError):
        lab.run()
    assert statuses(RunResult.read(lab.folder)) == PASSED


def test_a_bug_in_the_decisions_themselves_ends_the_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decisions, "decide", raises)
    with pytest.raises(TypeError):
        lab.run()


def test_an_interrupt_outweighs_a_bug_that_it_caused(lab: Lab, interrupt: Callable[[], None]) -> None:
    def cut(running: Any, _cell: Any) -> NoReturn:
        interrupt()
        while running.guest.is_alive:
            pass
        raises()

    lab.cell = at(WHERE, cut)
    run = lab.run(guests=ONE, jobs=1)
    assert run.run.interrupted and statuses(run)["debian-13"][0] == "not-run"
