"""Causes, live: cells that are blocked for different reasons, and for two at once, forked in one lane."""

from pathlib import Path

import pytest

from lab.catalog import Catalog
from lab.diagnosis import told
from lab.diagnosis.recorded import Recorded
from lab.diagnosis.told import Judged
from lab.results import RunResult
from tests.vm.conftest import RELEASE, cell, check_blocked, run_matrix

GUEST = "debian-13"
# What the evidence must show for each variant, in the order in which boxlite meets it.
BLOCKED = {
    "kvm-denied": [("kvm-denied", "proved")],
    "kvm-absent": [("kvm-absent", "proved")],
    "home-noexec": [("home-noexec", "proved")],
    "bwrap-setuid": [("bwrap-setuid", "proved")],
    "apparmor-bwrap-complain": [("apparmor-disconnected", "proved")],
    "apparmor-mount-deny": [("apparmor-mount-deny", "proved")],
    "userns-clone-off+bwrap-absent": [("userns-sysctl", "proved")],
    "userns-clone-off+kvm-denied": [("kvm-denied", "proved"), ("userns-sysctl", "proved")],
    "max-userns-zero+apparmor-off": [("userns-limit", "proved")],
}


# How boxlite's own words stand to that, where it is not right.
MISTOLD = {
    "home-noexec": Judged.NOTHING,
    "bwrap-setuid": Judged.UNKNOWN,
    "apparmor-bwrap-complain": Judged.UNKNOWN,
    "apparmor-mount-deny": Judged.UNKNOWN,
}


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    return home / "causes"


@pytest.fixture(scope="module")
def run(home: Path, folder: Path) -> RunResult:
    words = [word for variant in BLOCKED for word in ("-v", variant)]
    words += ["-g", GUEST, "--no-remedies", "--build", RELEASE]
    return run_matrix(home, folder, *words, seconds=1500)


@pytest.mark.parametrize("variant", BLOCKED)
def test_every_cause_is_named_with_proof_and_exactly_its_tests_failed(
    run: RunResult, variant: str, known: Catalog
) -> None:
    check_blocked(cell(run, variant), BLOCKED[variant], known.suite)


def test_kernel_arguments_have_a_lane_of_their_own_and_everything_else_shares_one(run: RunResult) -> None:
    lanes = {cell(run, variant).lane for variant in BLOCKED if "apparmor-off" not in variant}
    booted = cell(run, "max-userns-zero+apparmor-off")
    assert booted.lane not in lanes
    assert booted.facts["command_line"].endswith("apparmor=0")
    assert "apparmor" not in booted.facts["lsm"]
    assert "apparmor" in cell(run, "kvm-denied").facts["lsm"]


@pytest.mark.parametrize("variant", BLOCKED)
def test_boxlites_own_diagnosis_is_read_and_judged(run: RunResult, folder: Path, variant: str) -> None:
    blocked = Recorded(cell(run, variant), folder)
    assert told.judge(blocked.result, blocked.told, {}) is MISTOLD.get(variant, Judged.RIGHT)
