"""How the campaign of faults judges a run: what it calls untrue or left behind."""

from pathlib import Path
from typing import Any

import pytest

from lab.record import Outcome, RunResult, Status, TestResult
from lab.run.journal import RUN_LOG
from tests.builders.cells import cell
from tests.builders.runs import run_of
from tests.campaign import tries
from tests.campaign.faults import FAULTS
from tests.campaign.host import Home

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
TESTS = [TestResult(name="box_starts", outcome=Outcome.FAIL), TestResult(name="defaults", outcome=Outcome.PASS)]
OTHERS = [TestResult(name="box_starts", outcome=Outcome.SKIP), TESTS[1]]


def test_the_docs_name_every_kind_of_fault_with_what_happens_and_its_promise() -> None:
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in FAULTS]
    assert {len(row) for row in rows} == {3}


def test_the_same_seed_chooses_the_same_tries_and_every_kind_comes_once_before_any_comes_twice() -> None:
    chosen = tries.names(7, 2 * len(FAULTS), list(FAULTS))
    assert chosen == tries.names(7, 2 * len(FAULTS), list(FAULTS)) != tries.names(8, 99, list(FAULTS))
    for half in (chosen[: len(FAULTS)], chosen[len(FAULTS) :]):
        assert {name.rpartition(":")[2] for name in half} == set(FAULTS)


def test_what_a_run_did_last_is_read_without_notes_and_times(tmp_path: Path) -> None:
    assert tries.last_line(tmp_path) == "before the first step"
    (tmp_path / RUN_LOG).write_text(
        "2026-11-26T07:35:44.500Z debian-13 stock 0.10.8: pass (fork 1.4 s, suite 102.1 s)\n"
        "2026-11-26T07:35:45.000Z note: guests run under software emulation\n"
    )
    assert tries.last_line(tmp_path) == "debian-13 stock 0.10.8: pass"


def run_with(**changed: Any) -> RunResult:
    blocked = {"status": Status.XFAIL, "cause": "userns-sysctl", "tests": TESTS, **changed}
    return run_of(cell("debian-13", "userns-clone-off", **blocked), cell("debian-13", "stock"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"status": Status.ERROR, "reason": "QEMU is gone", "cause": None}, []),
        ({"status": Status.ERROR, "reason": " ", "cause": None}, ["is error without a reason"]),
        ({"status": Status.PASS, "cause": None}, ["status is pass "]),
        ({"cause": "kvm-denied"}, ["status is xfail kvm-denied "]),
        ({"tests": OTHERS}, ["box_starts is skip (), expected fail"]),
        ({"build": "0.9.0"}, ["the cells are ", "status is xfail userns-sysctl (), expected None"]),
    ],
)
def test_a_table_is_true_if_it_is_the_reference_or_says_why_a_cell_could_not_run(
    changed: dict[str, Any], told: list[str]
) -> None:
    run = run_with(**changed)
    findings = tries.untrue(run_with(), run)
    assert all(any(words in finding for finding in findings) for words in told)
    assert bool(findings) is bool(told)
    assert tries.unfinished(run) == [run.cells[0].name] * (changed.get("status") is Status.ERROR)


@pytest.mark.parametrize(
    ("file", "is_left", "is_left_once_resumed"),
    [
        ("state/lanes/.gate", False, False),
        ("state/lanes/lab-debian-13-0a1b2c/overlay.qcow2", True, True),
        ("state/unknown/overlay.qcow2", True, True),
        ("cache/states/.partial-debian-13-77/state.qcow2", True, True),
        ("tmp/boxlite-lab-tmp-1/x", True, True),
        # No other command knows of the run's folder.
        ("out/run/.lock", False, True),
    ],
)
def test_folders_and_half_written_files_are_found(
    tmp_path: Path, file: str, is_left: bool, is_left_once_resumed: bool
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    assert home.files_left(resumed=True) == []
    (home.base / file).parent.mkdir(parents=True)
    (home.base / file).touch()
    assert bool(home.files_left(resumed=False)) is is_left
    assert bool(home.files_left(resumed=True)) is is_left_once_resumed
