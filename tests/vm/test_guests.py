"""A guest that needs more than a suite's name: another security module, and labels on its disk."""

import os
from pathlib import Path

import pytest

from lab.results import CellResult, RunResult, Status
from tests.vm.conftest import RELEASE, run_matrix

# Anybody else has to leave it out.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a guest with SELinux labels")

SELINUX = "debian-13-selinux"


@pytest.fixture(scope="module")
def run(home: Path) -> RunResult:
    words = ["-g", SELINUX, "-v", "stock", "-v", "apparmor-userns-deny", "--no-remedies", "--build", RELEASE]
    return run_matrix(home, home / "guests", *words, seconds=1500)


def cell(run: RunResult, variant: str) -> CellResult:
    [found] = [c for c in run.cells if c.variant == variant]
    return found


def test_as_installed_it_passes_every_test_under_an_enforcing_selinux(run: RunResult) -> None:
    stock = cell(run, "stock")
    assert stock.status is Status.PASS, stock.reason
    facts = stock.facts
    assert facts["virtualization"] in ("svm", "vmx")
    assert (facts["selinux"]["mode"], facts["selinux"]["policy"]) == ("enforcing", "default")
    assert facts["selinux"]["user_namespace_class"] is True
    assert "selinux" in facts["lsm"]
    assert "apparmor" not in facts["lsm"]
    # What Debian's policy gives to every account it does not name: the suite ran as an ordinary login.
    context = facts["suite_context"]
    assert context["selinux"].startswith("unconfined_u:unconfined_r:unconfined_t:")
    assert context["apparmor"] is None


def test_without_apparmor_its_variants_make_no_sense(run: RunResult) -> None:
    blocked = cell(run, "apparmor-userns-deny")
    assert (blocked.status, blocked.reason) == (Status.NOT_APPLICABLE, "no AppArmor")
