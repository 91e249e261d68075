import os
from pathlib import Path

import pytest

from lab import catalog
from lab.builds.kinds.wheel import Wheel
from lab.plan import BLOCKED_SECONDS, BREAKING_SECONDS, PASS_SECONDS, REMEDIES_SECONDS, TURNING_SECONDS, Cell
from lab.record import (
    CellResult,
    Experiment,
    ExperimentPolicy,
    LaneRecord,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
    TestResult,
)
from lab.run.estimates import BRING_UP_AGAIN_SECONDS, BRING_UP_SECONDS, RUNS, Estimates
from lab.run.lanes import host_name
from tests.builders.cells import cell
from tests.builders.runs import host, run_of

KNOWN = catalog.load()


def planned(guest: str = "debian-13", variant: str = "stock") -> Cell:
    return Cell(KNOWN.guest(guest), KNOWN.variant(variant), Wheel("0.10.9", "0.10.9"))


def ran(guest: str, variant: str, *seconds: float, fork: str = "memory") -> CellResult:
    steps = dict(zip(("fork", "apply", "suite"), seconds, strict=False))
    return cell(guest, variant, fork=fork, seconds=steps, tests=[TestResult(name="a", outcome=Outcome.PASS)])


def lane(
    guest: str, *seconds: float, fork: str = "memory", steps: tuple[str, ...] = ("boot", "deploy")
) -> LaneRecord:
    return LaneRecord(guest=guest, image="1" * 64, fork=fork, seconds=dict(zip(steps, seconds, strict=True)))


def write(runs: Path, name: str, *cells: CellResult, age: float = 0.0) -> Path:
    """A run in the lab's own place, written so many seconds before the year 2033."""
    folder = runs / name
    folder.mkdir(parents=True)
    file = run_of(*cells, host=host(name=host_name())).write(folder)
    os.utime(file, (2e9 - age, 2e9 - age))
    return file


def test_a_cell_takes_the_median_of_all_its_steps_over_the_runs() -> None:
    runs = [run_of(ran("debian-13", "stock", 1.0, 2.0, suite)) for suite in (7.0, 97.0, 9.0)]
    assert Estimates(runs).cell(planned()) == 12.0


def test_a_cell_that_never_ran_takes_what_its_variant_took_elsewhere() -> None:
    known = Estimates([run_of(ran("debian-12", "stock", 10.0), ran("debian-13-backports", "stock", 30.0))])
    assert known.cell(planned("debian-13")) == 20.0
    assert known.cell(planned("debian-12")) == 10.0


@pytest.mark.parametrize(
    ("variant", "expected"), [("stock", PASS_SECONDS), ("max-userns-zero", BLOCKED_SECONDS)]
)
def test_a_variant_that_never_ran_takes_what_is_typical(variant: str, expected: float) -> None:
    assert Estimates().cell(planned(variant=variant)) == expected
    assert (
        Estimates([run_of(ran("debian-13", "userns-clone-off", 5.0))]).cell(planned(variant=variant))
        == expected
    )


def test_a_lane_comes_up_in_the_median_of_its_guests_lanes() -> None:
    lanes = [lane("debian-13", 20.0, 5.0), lane("debian-13", 30.0, 5.0), lane("debian-12", 90.0, 9.0)]
    known = Estimates([run_of(lanes=lanes[:1]), run_of(lanes=lanes[1:])])
    assert known.bring_up("debian-13") == 30.0
    assert known.bring_up("debian-13-backports") == BRING_UP_SECONDS


def test_a_cold_cell_is_not_counted_since_its_seconds_hold_its_boot() -> None:
    known = Estimates([run_of(ran("debian-13", "stock", 300.0, fork="cold"), ran("debian-13", "stock", 8.0))])
    assert known.cell(planned()) == 8.0
    assert Estimates([run_of(ran("debian-13", "stock", 300.0, fork="cold"))]).cell(planned()) == PASS_SECONDS


def test_a_cold_lane_is_not_counted_with_the_suite_that_it_ran() -> None:
    cold = lane("debian-13", 20.0, 5.0, 1.0, 40.0, fork="cold", steps=("boot", "deploy", "apply", "suite"))
    assert Estimates([run_of(lanes=[cold])]).bring_up("debian-13") in (25.0, BRING_UP_SECONDS)


def test_a_cell_in_which_nothing_ran_is_not_counted() -> None:
    stopped = cell(status=Status.ERROR, seconds={"fork": 900.0})
    assert Estimates([run_of(stopped, ran("debian-13", "stock", 8.0))]).cell(planned()) == 8.0


def test_a_cell_that_is_not_applicable_takes_no_time() -> None:
    refused = cell("debian-12", status=Status.NOT_APPLICABLE)
    known = Estimates([run_of(refused, ran("debian-13", "stock", 8.0))])
    assert known.cell(planned("debian-12")) == 0.0


def test_only_the_newest_runs_of_the_folder_are_counted(tmp_path: Path) -> None:
    # The names say nothing: a run may have a folder of any name.
    for number in range(RUNS):
        write(tmp_path, f"run-{number:02}", ran("debian-13", "stock", 10.0), age=100.0 + number)
    write(tmp_path, "zz-old", ran("debian-13", "userns-clone-off", 77.0), age=10_000.0)
    known = Estimates.from_folder(tmp_path)
    assert known.cell(planned()) == 10.0
    assert known.cell(planned(variant="userns-clone-off")) == BLOCKED_SECONDS
    (tmp_path / "run-00" / "results.json").unlink()
    assert Estimates.from_folder(tmp_path).cell(planned(variant="userns-clone-off")) == 77.0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"schema": 99, "run": {}, "cells": []}'])
def test_a_run_that_cannot_be_read_teaches_nothing(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "good", ran("debian-13", "stock", 8.0), age=10.0)
    write(tmp_path, "bad").write_bytes(content)
    assert Estimates.from_folder(tmp_path).cell(planned()) == 8.0


def test_what_is_no_file_or_gone_teaches_nothing(tmp_path: Path) -> None:
    write(tmp_path, "good", ran("debian-13", "stock", 8.0))
    (tmp_path / "folder" / "results.json").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone").mkdir()
    # What is left of a run that is removed at this moment.
    (tmp_path / "gone" / "results.json").symlink_to(tmp_path / "nowhere")
    assert Estimates.from_folder(tmp_path).cell(planned()) == 8.0


def test_before_the_first_run_there_is_no_folder(tmp_path: Path) -> None:
    assert Estimates.from_folder(tmp_path / "runs").cell(planned()) == PASS_SECONDS


def test_a_guest_that_was_restored_once_will_be_restored_again() -> None:
    booted, restored = lane("debian-13", 60.0, 15.0), lane("debian-13", 5.0, 15.0)
    restored.restored = True
    assert Estimates([run_of(lanes=[booted, booted, restored])]).bring_up("debian-13") == 20.0


def blocked(*remedies: float) -> CellResult:
    """A cell that failed, and what was tried on it took so many seconds."""
    result = ran("debian-13", "max-userns-zero", 10.0)
    result.cause = "userns-limit"
    result.remedies = [
        RemedyResult(name=f"{seconds}", result=RemedyOutcome.VERIFIED, price="", seconds=seconds)
        for seconds in remedies
    ]
    return result


def test_remedies_count_where_they_are_tried_and_only_there() -> None:
    with_them, without = run_of(blocked(30.0, 50.0)), run_of(blocked())
    with_them.run.options.remedies = True
    runs = [with_them, without]
    wanted = planned(variant="max-userns-zero")
    tries = RunOptions(remedies=True)
    assert Estimates(runs, tries).cell(wanted) == 90.0
    assert Estimates(runs).cell(wanted) == 10.0
    # A run that tried none teaches nothing about them.
    assert Estimates([without], tries).cell(wanted) == BLOCKED_SECONDS + REMEDIES_SECONDS
    assert Estimates([run_of(ran("debian-13", "stock", 7.0))], tries).cell(planned()) == 7.0


@pytest.mark.parametrize(
    ("wanted", "made", "seconds"),
    [
        (ExperimentPolicy.ALWAYS, ExperimentPolicy.ALWAYS, 110.0),
        # Those that are made anyway are the same ones.
        (ExperimentPolicy.ALWAYS, ExperimentPolicy.UNCLEAR, 110.0),
        (ExperimentPolicy.UNCLEAR, ExperimentPolicy.UNCLEAR, 110.0),
        (ExperimentPolicy.UNCLEAR, ExperimentPolicy.ALWAYS, 10.0),
        (ExperimentPolicy.NEVER, ExperimentPolicy.ALWAYS, 10.0),
    ],
)
def test_experiments_take_time(wanted: ExperimentPolicy, made: ExperimentPolicy, seconds: float) -> None:
    result = ran("debian-13", "stock", 10.0)
    result.experiment = Experiment(tests=["a"], seconds=100.0)
    run = run_of(result)
    run.run.options.experiments = made
    assert Estimates([run], RunOptions(experiments=wanted)).cell(planned()) == seconds


def test_a_run_without_experiments_teaches_nothing_about_them() -> None:
    always = RunOptions(experiments=ExperimentPolicy.ALWAYS)
    run = run_of(ran("debian-13", "stock", 7.0))
    assert Estimates([run], always).cell(planned()) == PASS_SECONDS + BREAKING_SECONDS
    assert Estimates([], always).cell(planned(variant="max-userns-zero")) == BLOCKED_SECONDS + TURNING_SECONDS


def test_seconds_are_measured_once_a_suite_was_timed_here() -> None:
    known = Estimates()
    known.learn(cell(status=Status.ERROR), RunOptions())
    known.learn(cell(variant="podman", status=Status.NOT_APPLICABLE), RunOptions())
    assert not known.are_measured
    known.learn(ran("debian-12", "stock", 1.0, 2.0, 7.0), RunOptions())
    assert known.are_measured
    assert known.cell(planned("debian-13")) == 10.0


def test_a_further_lane_of_a_guest_restores_what_the_first_one_stored() -> None:
    booted, restored = lane("debian-13", 60.0, 15.0), lane("debian-13", 5.0, 8.0)
    restored.restored = True
    assert Estimates([run_of(lanes=[booted, restored])]).bring_up_again("debian-13") == 13.0
    # Nobody knows yet how long that takes: not as long as a boot, and not longer than a boot that is quick.
    assert Estimates([run_of(lanes=[booted])]).bring_up_again("debian-13") == BRING_UP_AGAIN_SECONDS
    assert Estimates([run_of(lanes=[lane("debian-13", 2.0, 1.0)])]).bring_up_again("debian-13") == 3.0


# -- other hosts


def on(name: str, *cells: CellResult) -> RunResult:
    """A run of these cells on a host of this name."""
    return run_of(*cells, host=host(name=name))


def learned(folder: Path, *runs: RunResult) -> Estimates:
    for number, run in enumerate(runs):
        made = folder / f"run-{number}"
        made.mkdir()
        run.write(made)
    return Estimates.from_folder(folder)


def test_other_hosts_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOST_NAME", "own")
    slow, quick = ran("debian-13", "stock", 500.0), ran("debian-13", "stock", 8.0)
    known = learned(tmp_path, on("other", slow), on("own", quick))
    assert known.cell(planned()) == 8.0


def test_nothing_is_learned_from_a_run_on_several_hosts(tmp_path: Path) -> None:
    assert not learned(tmp_path, run_of(ran("debian-13", "stock", 8.0))).are_measured


def test_other_hosts_do_not_hide_older_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOST_NAME", "own")
    others = [on("other", ran("debian-13", "stock", 500.0)) for _ in range(RUNS + 2)]
    assert learned(tmp_path, on("own", ran("debian-13", "stock", 8.0)), *others).cell(planned()) == 8.0
