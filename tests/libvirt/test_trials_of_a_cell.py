"""Remedies and experiments on the cells that failed: when they are tried, and what a fault in them costs."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from lab.base.errors import LabError
from lab.catalog import remedies
from lab.lane.running import RunningLane
from lab.plan import Cell
from lab.record import (
    CellResult,
    Confidence,
    Experiment,
    ExperimentPolicy,
    FoundCause,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
)
from lab.trials import experiment
from lab.trials.remedies import RemedyAttempt, RemedyTrials
from tests.builders.cells import changed
from tests.builders.lab import ONE, Lab, at, blocked, fails, statuses, until_given_up


@pytest.fixture
def trials(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The cells on which remedies were tried, each with its lane; one remedy is verified on each."""
    made: list[tuple[str, str]] = []

    def try_all(trials: RemedyTrials) -> list[RemedyResult]:
        assert trials.retries == 1
        made.append((trials.cell.variant.name, trials.running.lane.name))
        return [RemedyResult(name="a", result=RemedyOutcome.VERIFIED, price="", seconds=1.0)]

    monkeypatch.setattr(RemedyTrials, "all", try_all)
    return made


@pytest.mark.parametrize(("remedies", "repeat"), [(True, 1), (True, 3), (False, 1)])
def test_remedies_are_tried_once_on_each_cell_that_failed(
    lab: Lab, trials: list[tuple[str, str]], remedies: bool, repeat: int
) -> None:
    lab.cell = at("debian-13/max-userns-zero", *[blocked] * repeat)
    run = lab.run(guests=ONE, remedies=remedies, repeat=repeat)
    assert statuses(run) == {"debian-13": ["pass", "xfail"]}
    assert [name for name, _ in trials] == (["max-userns-zero"] if remedies else [])
    assert [len(cell.remedies) for cell in run.cells] == [0, int(remedies)]


def test_a_flaky_cell_has_nothing_to_cure(lab: Lab, trials: list[tuple[str, str]]) -> None:
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, repeat=2)
    assert statuses(run) == {"debian-13": ["flaky"]}
    assert trials == []


@pytest.mark.parametrize("retries", [0, 1])
def test_a_lane_that_a_remedy_killed_keeps_its_cell_s_result_and_costs_no_other_cell(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    killed = [RemedyResult(name="a", result=RemedyOutcome.ERROR, price="", reason="the machine is gone")]

    def kill(trials: RemedyTrials) -> list[RemedyResult]:
        trials.running.lane.domain.destroy()
        return killed

    monkeypatch.setattr(RemedyTrials, "all", kill)
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, remedies=True, retries=retries)
    assert statuses(run) == {"debian-13": ["xfail", "pass"]}
    # When every lane dies in them, the trials are given up.
    assert (run.cells[0].remedies, run.cells[0].has_more_to_try) == (killed, True)
    assert len(run.cells[0].history.retried) == retries
    # The other one has a lane of its own, and the suite is not run again.
    assert [cells for cells in lab.lanes() if cells] == [["stock"], ["max-userns-zero"]]


def test_trials_that_a_dead_lane_left_over_are_made_on_a_fresh_one(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = RemedyResult(name="a", result=RemedyOutcome.VERIFIED, price="")
    lanes: list[tuple[str, list[str]]] = []

    def try_two(trials: RemedyTrials) -> list[RemedyResult]:
        lane = trials.running.lane
        lanes.append((lane.name, [tried.name for tried in trials.earlier_result.remedies]))
        if len(lanes) > 1:
            return [verified, verified.model_copy(update={"name": "b"})]
        trials.keep(verified)
        lane.domain.destroy()
        return [verified, RemedyResult(name="b", result=RemedyOutcome.ERROR, price="", reason="it is gone")]

    monkeypatch.setattr(RemedyTrials, "all", try_two)
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, remedies=True, retries=1)
    assert statuses(run) == {"debian-13": ["xfail", "pass"]}
    assert [(remedy.name, remedy.result) for remedy in run.cells[0].remedies] == [
        ("a", RemedyOutcome.VERIFIED),
        ("b", RemedyOutcome.VERIFIED),
    ]
    # The suite is not run again, and the fresh lane knows what the dead one has done.
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]
    assert [made for _, made in lanes] == [[], ["a"]]
    assert lanes[0][0] != lanes[1][0]
    [retried] = run.cells[0].history.retried
    assert "is gone" in retried
    assert (run.cells[0].history.lane, run.cells[0].history.trials_lane) == ("debian-13", "debian-13 #2")
    assert (run.cells[0].history.unfinished, run.cells[0].has_more_to_try) == (False, False)
    assert any("the rest of its trials is to be made on a fresh lane" in note for note in lab.heard.notes)
    assert "Reached target" in (lab.folder / run.cells[0].folder / "fault-1/console.log").read_text()


def test_what_was_tried_before_an_interrupt_stays_tried(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    begun: list[str] = []

    def attempt(tried: RemedyAttempt) -> tuple[RemedyOutcome, str]:
        begun.append(tried.remedies[0].name)
        tried.folder.mkdir(parents=True)
        (tried.folder / "suite.log").write_text(f"{len(begun)}")
        if len(begun) == 3:
            interrupt()
            until_given_up(tried.running.lane.check_wanted)
        return RemedyOutcome.VERIFIED, ""

    monkeypatch.setattr(RemedyAttempt, "run", attempt)
    lab.cell = at("debian-13/max-userns-zero", blocked_and_found)
    options: dict[str, Any] = {"guests": ONE, "variants": ["max-userns-zero"], "remedies": True, "jobs": 1}
    run = lab.run(**options)
    [first] = run.cells
    # What the suite showed is known.
    assert (run.run.interrupted, first.status, first.has_more_to_try) == (True, "xfail", True)
    assert first.history.unfinished and [tried.name for tried in first.remedies] == CANDIDATES[:2]
    assert RunResult.read(lab.folder).cells == [first]
    [second] = lab.run(**options, kept=lambda _cell: first).cells
    assert begun == CANDIDATES[:3] + CANDIDATES[2:]
    assert (second.remedies[:2], second.has_more_to_try) == (first.remedies, False)
    written = [(lab.folder / log).read_text() for tried in second.remedies for log in tried.evidence]
    assert written == ["1", "2", *(f"{number}" for number in range(4, len(CANDIDATES) + 2))]


def half_tried(cell: Cell) -> CellResult:
    """A cell of an earlier run, one of whose remedies met a fault of the lab's own."""
    fault = RemedyResult(name="a", result=RemedyOutcome.ERROR, price="", reason="the machine is gone")
    update = {"remedies": [fault], "lane": "an earlier one", "retried": ["no SSH"]}
    return changed(cell.result(Status.XFAIL), **{"cause": "userns-limit", **update})


def test_a_resumed_run_tries_only_what_met_a_fault(lab: Lab, trials: list[tuple[str, str]]) -> None:
    lab.cell = fails(AssertionError("its suite was run"))
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, kept=half_tried)
    [cell] = run.cells
    assert (cell.status, [str(remedy.result) for remedy in cell.remedies]) == ("xfail", ["verified"])
    assert (cell.history.lane, cell.history.trials_lane) == ("an earlier one", "debian-13")
    assert (cell.history.retried, cell.history.unfinished) == (["no SSH"], False)
    assert [name for name, _ in trials] == ["stock"]
    assert len(lab.heard.cells) == 1


def test_a_fault_before_the_trials_has_its_own_evidence(lab: Lab, trials: list[tuple[str, str]]) -> None:
    lab.deploy = Mock(side_effect=LabError("no room"))
    cell = lab.folder / "cells/debian-13/stock/0.10.8"
    cell.mkdir(parents=True)
    (cell / "console.log").write_text("of the suite")
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, retries=0, kept=half_tried)
    assert (run.cells[0].status, run.cells[0].has_more_to_try, trials) == ("xfail", True, [])
    assert (cell / "console.log").read_text() == "of the suite"
    assert "Reached target" in (cell / "fault-1/console.log").read_text()


def test_a_cell_s_experiment_comes_before_its_remedies_and_knows_what_passed(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, list[str], ExperimentPolicy]] = []

    def experimented(
        options: RunOptions,
        _running: RunningLane,
        cell: Cell,
        result: CellResult,
        passing: Sequence[CellResult],
    ) -> CellResult:
        heard.append((cell.variant.name, [other.variant for other in passing], options.experiments))
        assert trials == []
        return changed(result, experiment=Experiment(tests=["a"]))

    monkeypatch.setattr(experiment, "add_experiment", experimented)
    lab.cell = at("debian-13/max-userns-zero", blocked)
    run = lab.run(guests=ONE, remedies=True, experiments=ExperimentPolicy.UNCLEAR)
    assert heard == [
        ("stock", [], ExperimentPolicy.UNCLEAR),
        ("max-userns-zero", ["stock"], ExperimentPolicy.UNCLEAR),
    ]
    assert [name for name, _ in trials] == ["max-userns-zero"]
    assert [cell.trials.experiment is not None for cell in run.cells] == [True, True]


CANDIDATES = [remedy.name for remedy in remedies.choose_candidates(remedies.load_remedies(), ["userns-limit"])]


def blocked_and_found(_running: RunningLane, cell: Cell) -> CellResult:
    finding = FoundCause(name="userns-limit", confidence=Confidence.PROVED, reason="it is 0")
    return changed(blocked(_running, cell), causes=[finding], seconds={"suite": 20.0})
