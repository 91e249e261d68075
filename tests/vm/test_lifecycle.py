"""The suite about what comes after the start of a box, in a login by SSH and in a scope of the user's own."""

from pathlib import Path

import pytest

from lab.catalog import load_suite
from lab.record import Confidence, Needs, Outcome, RunResult, Status
from tests.vm.conftest import RELEASE, run_lab

pytestmark = [pytest.mark.lifecycle, pytest.mark.timeout(5400)]


def test_a_detached_box_lives_on_where_its_user_may_not_move_it_to_a_control_group(
    home: Path, tmp_path: Path
) -> None:
    words = ["-g", "debian-13", "-v", "stock", "-v", "session-user-scope", "--suite", "lifecycle"]
    more = ["--build", RELEASE, "--no-remedies", "--no-experiment", "--jobs", "1", "-o", f"{tmp_path}/run"]
    run_lab(home, "matrix", *words, *more, seconds=5000)
    stock, in_scope = RunResult.read(tmp_path / "run").cells
    assert (stock.status, stock.cause, stock.verdict.confidence) == (
        Status.XFAIL,
        "cgroup-not-joined",
        Confidence.PROVED,
    )
    failed = {test.name for test in stock.tests if test.outcome is not Outcome.PASS}
    assert failed == load_suite("lifecycle").needing(Needs.CGROUP)
    assert in_scope.status is Status.PASS, in_scope.reason
