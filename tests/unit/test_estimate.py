"""How long cells and lanes are expected to take, by earlier runs."""

import os
from pathlib import Path
from typing import Any

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


def planned(name: str = "debian-13/stock") -> Cell:
    guest, variant = name.split("/")
    return Cell(KNOWN.guest(guest), KNOWN.variant(variant), Wheel("0.10.9", "0.10.9"))


def ran(name: str, *seconds: float, fork: str = "memory") -> CellResult:
    guest, variant = name.split("/")
    steps = dict(zip(("fork", "apply", "suite"), seconds, strict=False))
    return cell(guest, variant, fork=fork, seconds=steps, tests=[TestResult(name="a", outcome=Outcome.PASS)])


def lane(guest: str, *seconds: float, **more: Any) -> LaneRecord:
    steps = dict(zip(("boot", "deploy", "apply", "suite"), seconds, strict=False))
    return LaneRecord(guest=guest, image="1" * 64, seconds=steps, **({"fork": "memory"} | more))


def write(runs: Path, name: str, *cells: CellResult, age: float = 0.0, on: str = "") -> Path:
    """A run in the lab's own place, written so many seconds before the year 2033."""
    folder = runs / name
    folder.mkdir(parents=True)
    file = run_of(*cells, host=host(name=on or host_name())).write(folder)
    os.utime(file, (2e9 - age, 2e9 - age))
    return file


STOPPED = cell(status=Status.ERROR, seconds={"fork": 900.0})
REFUSED = cell("debian-12", status=Status.NOT_APPLICABLE)
ELSEWHERE = [run_of(ran("debian-12/stock", 10.0), ran("debian-13-backports/stock", 30.0))]
COLD = ran("debian-13/stock", 300.0, fork="cold")


@pytest.mark.parametrize(
    ("runs", "name", "seconds"),
    [
        # The median of all its steps over the runs.
        (
            [run_of(ran("debian-13/stock", 1.0, 2.0, suite)) for suite in (7.0, 97.0, 9.0)],
            "debian-13/stock",
            12,
        ),
        # What never ran takes what its variant took elsewhere, or what is typical.
        (ELSEWHERE, "debian-13/stock", 20),
        (ELSEWHERE, "debian-12/stock", 10),
        ([], "debian-13/stock", PASS_SECONDS),
        ([], "debian-13/max-userns-zero", BLOCKED_SECONDS),
        ([run_of(ran("debian-13/userns-clone-off", 5.0))], "debian-13/max-userns-zero", BLOCKED_SECONDS),
        # The seconds of a cold cell hold its boot.
        ([run_of(COLD, ran("debian-13/stock", 8.0))], "debian-13/stock", 8),
        ([run_of(COLD)], "debian-13/stock", PASS_SECONDS),
        # Nothing ran in it.
        ([run_of(STOPPED, ran("debian-13/stock", 8.0))], "debian-13/stock", 8),
        ([run_of(REFUSED, ran("debian-13/stock", 8.0))], "debian-12/stock", 0),
    ],
)
def test_a_cell_takes_what_it_took_before(runs: list[RunResult], name: str, seconds: float) -> None:
    assert Estimates(runs).cell(planned(name)) == seconds


BOOTED, RESTORED = lane("debian-13", 60.0, 15.0), lane("debian-13", 5.0, 8.0, restored=True)


@pytest.mark.parametrize(
    ("lanes", "first", "further"),
    [
        ([], BRING_UP_SECONDS, BRING_UP_AGAIN_SECONDS),
        # The median of the guest's own lanes.
        ([lane("debian-13", 20.0, 5.0), lane("debian-13", 30.0, 5.0), lane("debian-12", 90.0, 9.0)], 30, 20),
        # The seconds of a cold one hold the suite that it ran.
        ([lane("debian-13", 20.0, 5.0, 1.0, 40.0, fork="cold")], BRING_UP_SECONDS, BRING_UP_AGAIN_SECONDS),
        # A guest that was restored once will be restored again.
        ([BOOTED, BOOTED, RESTORED], 13, 13),
        # Nobody knows yet how long that takes: not as long as a boot, and not longer than a boot that is quick.
        ([BOOTED], 75, BRING_UP_AGAIN_SECONDS),
        ([lane("debian-13", 2.0, 1.0)], 3, 3),
    ],
)
def test_a_lane_comes_up_as_its_guest_s_lanes_did(
    lanes: list[LaneRecord], first: float, further: float
) -> None:
    estimates = Estimates([run_of(lanes=lanes[:1]), run_of(lanes=lanes[1:])])
    assert (estimates.bring_up("debian-13"), estimates.bring_up_again("debian-13")) == (first, further)


def test_only_the_newest_runs_of_the_folder_are_counted(tmp_path: Path) -> None:
    # Before the first run there is no folder.
    assert Estimates.from_folder(tmp_path / "runs").cell(planned()) == PASS_SECONDS
    # The names say nothing: a run may have a folder of any name.
    for number in range(RUNS):
        write(tmp_path, f"run-{number:02}", ran("debian-13/stock", 10.0), age=100.0 + number)
    write(tmp_path, "zz-old", ran("debian-13/userns-clone-off", 77.0), age=10_000.0)
    estimates = Estimates.from_folder(tmp_path)
    assert estimates.cell(planned()) == 10.0
    assert estimates.cell(planned("debian-13/userns-clone-off")) == BLOCKED_SECONDS
    (tmp_path / "run-00" / "results.json").unlink()
    assert Estimates.from_folder(tmp_path).cell(planned("debian-13/userns-clone-off")) == 77.0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"schema": 99, "run": {}, "cells": []}', None]
)
def test_a_run_that_cannot_be_read_teaches_nothing(tmp_path: Path, content: bytes | None) -> None:
    write(tmp_path, "good", ran("debian-13/stock", 8.0), age=10.0)
    if content is not None:
        write(tmp_path, "bad").write_bytes(content)
    else:
        (tmp_path / "folder" / "results.json").mkdir(parents=True)
        (tmp_path / "empty").mkdir()
        (tmp_path / "gone").mkdir()
        # What is left of a run that is removed at this moment.
        (tmp_path / "gone" / "results.json").symlink_to(tmp_path / "nowhere")
    assert Estimates.from_folder(tmp_path).cell(planned()) == 8.0


def test_runs_of_other_hosts_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOST_NAME", "own")
    write(tmp_path, "other", ran("debian-13/stock", 500.0), on="other")
    (tmp_path / "several").mkdir()
    run_of(ran("debian-13/stock", 500.0)).write(tmp_path / "several")
    assert not Estimates.from_folder(tmp_path).are_measured
    write(tmp_path, "own", ran("debian-13/stock", 8.0))
    assert Estimates.from_folder(tmp_path).cell(planned()) == 8.0


def test_remedies_count_where_they_are_tried_and_only_there() -> None:
    def blocked(*remedies: float) -> CellResult:
        """A cell that failed, and what was tried on it took so many seconds."""
        result = ran("debian-13/max-userns-zero", 10.0)
        result.cause = "userns-limit"
        result.remedies = [
            RemedyResult(name=f"{seconds}", result=RemedyOutcome.VERIFIED, price="", seconds=seconds)
            for seconds in remedies
        ]
        return result

    with_them, without = run_of(blocked(30.0, 50.0)), run_of(blocked())
    with_them.run.options.remedies = True
    cell, tries = planned("debian-13/max-userns-zero"), RunOptions(remedies=True)
    assert Estimates([with_them, without], tries).cell(cell) == 90.0
    assert Estimates([with_them, without]).cell(cell) == 10.0
    # A run that tried none teaches nothing about them.
    assert Estimates([without], tries).cell(cell) == BLOCKED_SECONDS + REMEDIES_SECONDS
    assert Estimates([run_of(ran("debian-13/stock", 7.0))], tries).cell(planned()) == 7.0


@pytest.mark.parametrize(
    ("wanted", "made", "seconds"),
    [
        (ExperimentPolicy.ALWAYS, ExperimentPolicy.ALWAYS, 110.0),
        # Those that are made anyway are the same ones.
        (ExperimentPolicy.ALWAYS, ExperimentPolicy.UNCLEAR, 110.0),
        (ExperimentPolicy.UNCLEAR, ExperimentPolicy.UNCLEAR, 110.0),
        (ExperimentPolicy.UNCLEAR, ExperimentPolicy.ALWAYS, 10.0),
        (ExperimentPolicy.NEVER, ExperimentPolicy.ALWAYS, 10.0),
        # A run without experiments teaches nothing about them.
        (ExperimentPolicy.ALWAYS, None, PASS_SECONDS + BREAKING_SECONDS),
    ],
)
def test_experiments_take_time(wanted: ExperimentPolicy, made: ExperimentPolicy | None, seconds: float) -> None:
    result = ran("debian-13/stock", 10.0)
    run = run_of(result)
    if made is not None:
        result.experiment = Experiment(tests=["a"], seconds=100.0)
        run.run.options.experiments = made
    assert Estimates([run], RunOptions(experiments=wanted)).cell(planned()) == seconds
    always = Estimates([], RunOptions(experiments=ExperimentPolicy.ALWAYS))
    assert always.cell(planned("debian-13/max-userns-zero")) == BLOCKED_SECONDS + TURNING_SECONDS


def test_seconds_are_measured_once_a_suite_was_timed_here() -> None:
    estimates = Estimates()
    estimates.learn(cell(status=Status.ERROR), RunOptions())
    estimates.learn(cell(variant="podman", status=Status.NOT_APPLICABLE), RunOptions())
    assert not estimates.are_measured
    estimates.learn(ran("debian-12/stock", 1.0, 2.0, 7.0), RunOptions())
    assert estimates.are_measured
    assert estimates.cell(planned()) == 10.0
