"""Guests with another kernel than their own: the package is booted, and one that nobody has is told as that."""

from pathlib import Path

import pytest

from lab.record import Confidence, RunResult, Status
from tests.vm.conftest import RELEASE, run_lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# Not of a real-time kernel: KVM in it wants a constant TSC, which emulated processors do not have.
GENERIC, ABSENT = "linux-image-amd64", "linux-image-of-nobody"


def test_a_blocked_cell_under_another_kernel_has_its_cause_and_that_kernel(home: Path, tmp_path: Path) -> None:
    words = ["-g", "debian-13", "-v", "userns-clone-off", "--kernel", GENERIC, "--kernel", ABSENT]
    more = ["--build", RELEASE, "--no-remedies", "--no-experiment", "-o", str(tmp_path / "run")]
    run_lab(home, "matrix", *words, *more, status=3, seconds=3600)
    blocked, missing = RunResult.read(tmp_path / "run").cells
    assert (blocked.guest, blocked.kernel) == (f"debian-13@{GENERIC}", GENERIC)
    assert blocked.facts
    assert "-cloud-" not in blocked.facts.kernel
    assert (blocked.status, blocked.cause, blocked.verdict.confidence) == (
        Status.XFAIL,
        "userns-sysctl",
        Confidence.PROVED,
    )
    assert missing.status is Status.ERROR
    assert f"Debian trixie has no kernel {ABSENT}" in missing.reason
