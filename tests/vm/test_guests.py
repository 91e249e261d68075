"""A guest that needs more than a suite's name: another security module, and labels on its disk."""

import os
from pathlib import Path

import pytest

from lab.catalog import Catalog
from lab.results import CellResult, Needs, Outcome, RunResult, Status
from tests.vm.conftest import RELEASE, run_matrix

# Anybody else has to leave it out.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a guest with SELinux labels")

SELINUX, DENY = "debian-13-selinux", "selinux-userns-deny"


@pytest.fixture(scope="module")
def run(home: Path) -> RunResult:
    words = ["-g", SELINUX, "-v", "stock", "-v", "apparmor-userns-deny", "-v", DENY]
    return run_matrix(home, home / "guests", *words, "--no-remedies", "--build", RELEASE, seconds=1500)


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


def test_a_policy_without_user_namespaces_blocks_the_sandbox_and_nothing_else(
    run: RunResult, known: Catalog
) -> None:
    blocked = cell(run, DENY)
    assert blocked.status is Status.XFAIL, blocked.reason
    assert [(found.name, str(found.confidence)) for found in blocked.causes] == [(DENY, "proved")]
    failed = {test.name for test in blocked.tests if test.outcome is not Outcome.PASS}
    assert failed == known.suite.needing(Needs.SANDBOX)
    assert blocked.facts["selinux"]["mode"] == "enforcing"
    assert "lab" in blocked.facts["selinux"]["modules"]
    assert "lab" not in cell(run, "stock").facts["selinux"]["modules"]
