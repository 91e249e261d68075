"""A host that other programs keep busy: cells and remedies have the verdicts that they have on a quiet one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.clock import busy
from lab.record import RemedyOutcome, RunResult, Status
from tests.vm import shared
from tests.vm.conftest import RELEASE

pytestmark = [pytest.mark.busy, pytest.mark.timeout(7200)]

# Four for each of two processors: a guest gets a sixth of one.
PROGRAMS = 8
# What is verified on a quiet host.
VERIFIED = {"unprivileged-userns-complain", "bwrap-profile", "bwrap-userns-restrict"}


def test_verdicts_are_those_of_a_quiet_host(home: Path, tmp_path: Path) -> None:
    own = home.with_name(f"{home.name}-busy")
    shared.make_home(own)
    try:
        words = ["-g", "debian-13", "-v", "stock", "-v", "apparmor-userns-nocaps", "--build", RELEASE]
        with busy(PROGRAMS):
            run = subprocess.run(
                [sys.executable, "-m", "lab", "matrix", *words, "-o", str(tmp_path / "run")],
                env={**os.environ, "LAB_HOME": str(own)},
                capture_output=True,
                text=True,
                check=False,
            )
    finally:
        shared.remove_home(own)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "other programs want the" in run.stderr + run.stdout
    cells = {cell.variant: cell for cell in RunResult.read(tmp_path / "run").cells}
    assert cells["stock"].status is Status.PASS
    blocked = cells["apparmor-userns-nocaps"]
    assert (blocked.status, blocked.cause) == (Status.XFAIL, "apparmor-userns-nocaps")
    found = {each.name: each.result for each in blocked.remedies}
    assert RemedyOutcome.ERROR not in found.values()
    assert {name for name, result in found.items() if result is RemedyOutcome.VERIFIED} >= VERIFIED
