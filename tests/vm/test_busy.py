"""A host that other programs keep busy: a cell has the verdict that it has on a quiet one."""

from pathlib import Path

import pytest

from benchmarks.clock import busy
from lab.record import RunResult, Status
from tests.vm.conftest import RELEASE, run_lab

pytestmark = [pytest.mark.busy, pytest.mark.timeout(7200)]

# Four for each of two processors: a guest gets a sixth of one.
PROGRAMS = 8


def test_the_cell_that_takes_longest_passes_as_on_a_quiet_host(home: Path, tmp_path: Path) -> None:
    words = ["-g", "debian-13", "-v", "stock", "--build", RELEASE]
    with busy(PROGRAMS):
        run_lab(home, "matrix", *words, "-o", tmp_path / "run", seconds=7200)
    [cell] = RunResult.read(tmp_path / "run").cells
    assert (cell.status, cell.history.retried, cell.history.faults) == (Status.PASS, [], [])
