"""`lab matrix` that ends with a gate: what it runs, what it refuses first, and its exit status."""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from packaging.version import Version

from lab.builds import wheels
from lab.builds.kinds.wheel import Wheel
from lab.gate import baseline
from lab.gate.decision import Gate
from lab.plan import Cell
from lab.record import CellResult, RunResult, Status
from lab.run import scheduler
from tests.builders.cells import changed, done, side
from tests.builders.processes import RunLab, decide_at_once

CELL = ["matrix", "-g", "debian-13", "-v", "stock"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, where every release exists; the newest are 0.10.7 and 0.10.8."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Wheel, "check", lambda *_: None)
    releases = list(map(Version, ("0.10.0", "0.10.7", "0.10.8")))
    monkeypatch.setattr(wheels, "list_releases", lambda: releases)
    return tmp_path


def guests(
    monkeypatch: pytest.MonkeyPatch,
    statuses: Mapping[str, Status],
    *,
    interrupted: bool = False,
    bug: bool = False,
) -> list[str]:
    """Runs without guests: each build's cells get a status. Returns the names of the cells that were run."""

    def result(cell: Cell) -> CellResult:
        return changed(cell.result(statuses.get(cell.build.name, Status.PASS)), bug=bug)

    return decide_at_once(monkeypatch, result, interrupted=interrupted)


@pytest.mark.parametrize(
    ("status", "bug", "exit_status", "gate"),
    [
        (Status.PASS, False, 0, Gate.PASSED),
        (Status.FAIL, False, 1, Gate.BLOCKED),
        (Status.ERROR, False, 3, Gate.INCOMPLETE),
        (Status.ERROR, True, 4, Gate.INCOMPLETE),
    ],
)
def test_a_run_ends_with_the_decision_and_the_status_of_its_gate(
    run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, status: Status, bug: bool, exit_status: int, gate: Gate
) -> None:
    guests(monkeypatch, {"0.10.8": status}, bug=bug)
    baseline.write_baseline(side(done(Status.PASS)), Path("b.toml"))
    assert f"\ngate {gate}: " in run_lab(exit_status, *CELL, "--gate", "b.toml")


def test_two_releases_are_compared(run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = guests(monkeypatch, {"0.10.8": Status.FAIL})
    printed = run_lab(1, *CELL, "--gate-build", "previous")
    assert ran == ["debian-13/stock/0.10.7", "debian-13/stock/0.10.8"]
    assert f"\ngate {Gate.BLOCKED}: " in printed
    assert printed.index("boxlite 0.10.8 (run ") < printed.index("boxlite 0.10.7 (run ")


def test_only_the_resumed_run_has_a_gate(home: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--gate-build", "0.10.0", "--build", "0.10.8"]
    with monkeypatch.context() as patched:
        guests(patched, {}, interrupted=True)
        assert "gate" not in run_lab(130, *CELL, *words).out
    [run] = home.glob("home/state/runs/*")
    ran = guests(monkeypatch, {"0.10.8": Status.FAIL})
    printed = run_lab(1, "matrix", "--resume", run, "--gate-build", "previous")
    assert ran == ["debian-13/stock/0.10.8"]
    assert f"\ngate {Gate.BLOCKED}: " in printed


def test_a_run_may_be_resumed_with_a_gate(home: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    guests(monkeypatch, {})
    run_lab(0, *CELL, "--build", "0.10.8", "--no-experiment")
    [run] = home.glob("home/state/runs/*")
    baseline.write_baseline(side(done(Status.XPASS)), Path("b.toml"))
    assert f"\ngate {Gate.PASSED}: " in run_lab(0, "matrix", "--resume", run, "--gate", "b.toml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gate", "b.toml", "--gate-build", "0.10.0"], "--gate and --gate-build are different gates"),
        (["--expect", "good.toml"], "--expect needs a gate"),
        (["--gate", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--gate", "other.toml"], "have no cell in common"),
        (["--gate", "b.toml", "--expect", "bad.toml"], "bad.toml: colour: unknown key"),
        (["--gate", "b.toml", "--build", "0.10.0", "--build", "0.10.8"], "--gate decides about one build"),
        (["--gate-build", "0.9", "--build", "0.10.0", "--build", "0.10.8"], "tests one candidate"),
        (["--gate-build", "previous", "--build", "0.10.0"], "there is no release of boxlite older than 0.10.0"),
        (["--gate-build", "0.10.8"], "--gate-build 0.10.8 is the build under test"),
        (["--gate-build", "latest!"], "neither a version nor"),
        (["--gate", "b.toml", "--suite", "all"], "a gate decides about one suite"),
        (["--gate-build", "previous", "--suite", "all"], "a gate decides about one suite"),
    ],
)
def test_a_gate_that_cannot_be_is_refused_before_any_guest_boots(
    home: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    baseline.write_baseline(side(done(Status.PASS)), Path("b.toml"))
    baseline.write_baseline(side(done(Status.PASS, guest="debian-12")), Path("other.toml"))
    Path("good.toml").write_text("")
    Path("bad.toml").write_text("colour = 1\n")

    class Refused(scheduler.Scheduler):
        def run(self) -> NoReturn:
            raise AssertionError("a guest would have been booted")

    monkeypatch.setattr(scheduler, "Scheduler", Refused)
    assert message in run_lab(2, *CELL, *words)
    assert not list(home.glob("home/state/runs/*"))


def test_a_shard_is_not_complete(run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    guests(monkeypatch, {})
    words = [*CELL, "--gate-build", "0.10.0", "--build", "0.10.8", "--shard"]
    for shard in ("1/2", "2/2"):
        assert "merge the shards first" in run_lab(3, *words, shard, "-o", shard[0])
    run_lab(0, "merge", "1", "2", "-o", "both")
    run_lab(0, "gate", "both", "--against-build", "0.10.0")


def name_suites(release: str) -> list[str]:
    """The builds that a release is with `--suite all`."""
    return [release, *(f"{suite}-{release}" for suite in Wheel.more_suites)]


def test_the_suites_of_a_run_are_builds_of_their_own_to_all_that_reads_it(
    run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of = [*CELL, "--suite", "all", "--build"]
    ran = guests(monkeypatch, {})
    run_lab(0, *all_of, "0.10.7", "-o", "old")
    assert ran == [f"debian-13/stock/{name}" for name in name_suites("0.10.7")]
    run_lab(0, "baseline", "old", "--build", "0.10.7", "-o", "jailer.toml")
    run_lab(0, "baseline", "old", "--build", "lifecycle-0.10.7", "-o", "lifecycle.toml")
    # A suite's baseline does not change with another suite.
    assert '"suite lifecycle"' in Path("lifecycle.toml").read_text()
    assert '"suite jailer"' not in Path("lifecycle.toml").read_text()
    guests(monkeypatch, {"lifecycle-0.10.8": Status.FAIL})
    run_lab(1, *all_of, "0.10.8", "-o", "new")
    assert "tested several builds: 0.10.8, lifecycle-0.10.8" in run_lab(
        2, "gate", "new", "--against", "jailer.toml"
    )
    run_lab(0, "gate", "new", "--against", "jailer.toml", "--build", "0.10.8")
    run_lab(1, "gate", "new", "--against", "lifecycle.toml", "--build", "lifecycle-0.10.8")
    expected = run_lab(0, "expect", "new", "--build", "lifecycle-0.10.8", "-o", "expect.toml")
    assert "1 added" in expected
    # Shards of one plan are one run again, and the run of one suite has one gate.
    ran = guests(monkeypatch, {})
    for number in ("1", "2"):
        run_lab(0, *all_of, "0.10.8", "--shard", f"{number}/2", "-o", f"shard-{number}")
    every_suite = name_suites("0.10.8")
    assert ran == [f"debian-13/stock/{name}" for name in every_suite]
    run_lab(0, "merge", "shard-1", "shard-2", "-o", "whole")
    assert [cell.build for cell in RunResult.read(Path("whole")).cells] == every_suite
    run_lab(0, "publish", "whole", "-o", "site")
    assert Path("site/cells/debian-13/stock/lifecycle-0.10.8.html").is_file()
    ran = guests(monkeypatch, {})
    run_lab(0, *CELL, "--gate-build", "previous", "--suite", "lifecycle")
    assert ran == ["debian-13/stock/lifecycle-0.10.7", "debian-13/stock/lifecycle-0.10.8"]
