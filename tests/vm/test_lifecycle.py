"""What comes after the start of a box: its end and its volumes, limits of open files, and what cures these."""

from pathlib import Path

import pytest

from lab.catalog import load_suite
from lab.record import CellResult, Confidence, Needs, Outcome, RemedyOutcome, RunResult, Status
from tests.vm.conftest import RELEASE, run_lab

pytestmark = [pytest.mark.lifecycle, pytest.mark.timeout(5400)]


# In a login by SSH, and in a scope of the user's service manager.
IN_BOTH = ("-v", "stock", "-v", "session-user-scope", "--no-remedies")


def run_cells(home: Path, folder: Path, *words: str, seconds: float) -> list[CellResult]:
    """Run cells of debian-13 with the release."""
    more = ["--build", RELEASE, "--no-experiment", "--jobs", "1", "-o", str(folder)]
    run_lab(home, "matrix", "-g", "debian-13", *words, *more, seconds=seconds)
    return RunResult.read(folder).cells


def verified(cell: CellResult) -> set[str]:
    return {remedy.name for remedy in cell.remedies if remedy.result is RemedyOutcome.VERIFIED}


def test_a_box_that_asks_for_more_open_files_than_its_user_may_have_starts_after_the_remedy(
    home: Path, tmp_path: Path
) -> None:
    [cell] = run_cells(home, tmp_path / "run", "-v", "nofile-256", "--remedies", seconds=2400)
    verdict = (cell.status, cell.cause, cell.verdict.confidence)
    assert verdict == (Status.XFAIL, "nofile-limit", Confidence.PROVED), cell.reason
    assert "nofile-raise" in verified(cell), cell.remedies


def test_two_causes_of_volumes_are_proved_in_one_cell(home: Path, tmp_path: Path) -> None:
    [cell] = run_cells(
        home, tmp_path / "run", "-v", "stock", "--suite", "volumes", "--no-remedies", seconds=1200
    )
    assert cell.status is Status.XFAIL, cell.reason
    proved = {cause.name for cause in cell.verdict.causes if cause.confidence is Confidence.PROVED}
    assert {"volume-not-in-sandbox", "volumes-exhaust-irqs"} <= proved


def test_a_scope_of_the_users_cures_a_box_that_lives_on(home: Path, tmp_path: Path) -> None:
    words = ["-v", "stock", "--suite", "lifecycle", "--remedies"]
    [cell] = run_cells(home, tmp_path / "run", *words, seconds=5000)
    assert cell.cause == "cgroup-not-joined", cell.reason
    assert "user-scope" in verified(cell), cell.remedies


def test_a_detached_box_lives_on_where_its_user_may_not_move_it_to_a_control_group(
    home: Path, tmp_path: Path
) -> None:
    stock, in_scope = run_cells(home, tmp_path / "run", *IN_BOTH, "--suite", "lifecycle", seconds=5000)
    assert (stock.status, stock.cause, stock.verdict.confidence) == (
        Status.XFAIL,
        "cgroup-not-joined",
        Confidence.PROVED,
    )
    failed = {test.name for test in stock.tests if test.outcome is not Outcome.PASS}
    assert failed == load_suite("lifecycle").needing(Needs.CGROUP)
    assert in_scope.status is Status.PASS, in_scope.reason


def test_boxes_start_after_their_guest_was_booted_again_and_the_next_cell_is_forked(
    home: Path, tmp_path: Path
) -> None:
    cells = run_cells(home, tmp_path / "run", *IN_BOTH, "--suite", "reboot", seconds=2400)
    assert [cell.status for cell in cells] == [Status.PASS, Status.PASS], [cell.reason for cell in cells]
