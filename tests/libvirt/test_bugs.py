"""Bugs of the lab: what raises something that nobody expected costs its own cell, and the run ends with 4."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from lab.record import CellResult, RemedyOutcome, RunResult, Status
from tests.builders.cells import changed
from tests.builders.lab import ONE, PASSED, Lab, at, statuses
from tests.libvirt.test_trials_of_a_cell import blocked_and_found

BUG = TypeError("'NoneType' object is not subscriptable")
WHERE = "debian-13/stock"


def raises(*_arguments: Any, **_more: Any) -> NoReturn:
    raise BUG


def dies(running: Any, _cell: Any) -> NoReturn:
    running.lane.domain.destroy()
    raises()


def endless(_running: Any, cell: Any) -> CellResult:
    """A result that could not be read again."""
    result: CellResult = cell.result(Status.PASS)
    return changed(result, seconds={"suite": float("inf")})


def traceback_of(lab: Lab, cell: CellResult) -> str:
    [name] = [name for name in cell.evidence if name.endswith("traceback.txt")]
    return (lab.folder / name).read_text()


@pytest.mark.parametrize(
    ("what", "broken", "error", "outcomes", "lanes"),
    [
        ("cell", at(WHERE, raises), "TypeError", ["error", "pass"], [["stock", "max-userns-zero"]]),
        ("cell", at(WHERE, dies), "TypeError", ["error", "pass"], [["stock"], ["max-userns-zero"]]),
        ("cell", at(WHERE, endless), "ValidationError", ["error", "pass"], [["stock", "max-userns-zero"]]),
        ("boot", raises, "TypeError", ["error", "error"], [[]]),
        ("deploy", raises, "TypeError", ["error", "error"], [[]]),
    ],
    ids=["in a cell", "on a machine that died", "in a record", "in a boot", "in a damaged wheel"],
)
def test_a_bug_is_the_error_of_the_cells_that_met_it_with_its_traceback_and_is_not_tried_again(
    lab: Lab, what: str, broken: Callable[..., Any], error: str, outcomes: list[str], lanes: list[list[str]]
) -> None:
    setattr(lab, what, broken)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": outcomes}
    assert lab.lanes() == lanes
    for cell in run.cells[: outcomes.count("error")]:
        assert f"{error}: " in cell.reason and "report it" in cell.reason
        assert f"{error}: " in traceback_of(lab, cell)
        assert (cell.history.bug, cell.history.retried) == (True, [])
    assert (run.exit_status(), RunResult.read(lab.folder).exit_status()) == (4, 4)


@pytest.mark.parametrize("where", ["remedies.RemedyAttempt.run", "remedies.RemedyTrials.all"])
def test_a_bug_in_a_trial_keeps_the_result(lab: Lab, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(f"lab.trials.{where}", raises)
    lab.cell = at("debian-13/max-userns-zero", blocked_and_found)
    run = lab.run(guests=ONE, remedies=True, jobs=1)
    assert statuses(run) == {"debian-13": ["pass", "xfail"]}
    cell = run.cells[1]
    assert cell.has_more_to_try and run.exit_status() == 4
    if where.endswith("run"):
        assert {(remedy.result, remedy.bug) for remedy in cell.remedies} >= {(RemedyOutcome.ERROR, True)}
        tried = [name.split("/")[-2] for name in cell.evidence if name.endswith("traceback.txt")]
        assert tried == sorted(remedy.name for remedy in cell.remedies if remedy.bug)
    else:
        assert cell.history.bug and "TypeError" in cell.history.retried[0]
        assert "in raises" in traceback_of(lab, cell)


@pytest.mark.parametrize(
    "where", [f"tests.builders.runs.Told.{what}" for what in ("lane", "cell", "note", "time_left")]
)
def test_a_bug_that_costs_no_cell_is_told_at_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, raises)
    with pytest.raises(TypeError) as raised:
        lab.run()
    assert raised.value is BUG
    recorded = RunResult.read(lab.folder)
    assert statuses(recorded) == PASSED and recorded.run.finished is not None


def test_a_bug_in_the_decisions_themselves_ends_the_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.run.decisions.Decisions.decide", raises)
    with pytest.raises(TypeError):
        lab.run()


def test_an_interrupt_outweighs_a_bug_that_it_caused(lab: Lab, interrupt: Callable[[], None]) -> None:
    def cut(running: Any, _cell: Any) -> NoReturn:
        interrupt()
        while running.lane.is_alive:
            pass
        raises()

    lab.cell = at(WHERE, cut)
    run = lab.run(guests=ONE, jobs=1)
    assert run.run.interrupted and statuses(run)["debian-13"][0] == "not-run"
