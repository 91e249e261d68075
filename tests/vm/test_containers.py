"""Containers, live: what blocks the sandbox in one, and that mounts of the guest hold in it too."""

from pathlib import Path

import pytest

from lab.catalog import Catalog
from lab.results import RunResult
from tests.vm.conftest import RELEASE, cell, check_blocked, run_matrix

GUEST = "debian-13-podman"
# What the evidence must show for each variant, in the order in which boxlite meets it.
BLOCKED = {
    "podman-no-namespaces": [("seccomp", "proved"), ("masked-proc", "likely")],
    "podman": [("apparmor-userns-deny", "proved"), ("masked-proc", "likely")],
    "podman-apparmor-off": [("masked-proc", "proved")],
    "podman-unconfined+home-noexec": [("home-noexec", "proved")],
}


@pytest.fixture(scope="module")
def run(home: Path) -> RunResult:
    words = [word for variant in BLOCKED for word in ("-v", variant)]
    words += ["-g", GUEST, "--no-remedies", "--build", RELEASE]
    return run_matrix(home, home / "containers", *words, seconds=1500)


@pytest.mark.parametrize("variant", BLOCKED)
def test_what_blocks_the_sandbox_in_a_container_is_named_with_proof(
    run: RunResult, variant: str, known: Catalog
) -> None:
    check_blocked(cell(run, variant), BLOCKED[variant], known.suite)
