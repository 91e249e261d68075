"""Guests that need more than a suite's name: another security module, another suite's init and loader."""

import os
from pathlib import Path

import pytest

from lab.results import CellResult, RunResult, Status
from tests.vm.conftest import RELEASE, lab

SELINUX, FORKY = "debian-13-selinux", "debian-14"
VARIANTS = ("stock", "apparmor-userns-deny")
# Anybody else has to leave it out.
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a guest with SELinux labels")
GUESTS = (SELINUX, FORKY) if os.geteuid() == 0 else (FORKY,)


@pytest.fixture(scope="module")
def run(home: Path) -> RunResult:
    folder = home / "guests"
    words = [word for guest in GUESTS for word in ("-g", guest)]
    words += [word for variant in VARIANTS for word in ("-v", variant)]
    started = lab(home, "matrix", "--no-remedies", *words, "--build", RELEASE, "-o", str(folder))
    output, _ = started.communicate(timeout=1500)
    result = RunResult.read(folder)
    assert started.returncode == result.exit_status() == 0, output
    return result


def cell(run: RunResult, guest: str, variant: str) -> CellResult:
    [found] = [c for c in run.cells if (c.guest, c.variant) == (guest, variant)]
    return found


@pytest.mark.parametrize("guest", [pytest.param(SELINUX, marks=as_root), FORKY])
def test_as_installed_it_passes_every_test(run: RunResult, guest: str) -> None:
    stock = cell(run, guest, "stock")
    assert stock.status is Status.PASS, stock.reason
    assert stock.facts["virtualization"] in ("svm", "vmx")


@as_root
def test_the_suite_ran_under_an_enforcing_selinux_as_an_ordinary_login(run: RunResult) -> None:
    facts = cell(run, SELINUX, "stock").facts
    assert (facts["selinux"]["mode"], facts["selinux"]["policy"]) == ("enforcing", "default")
    assert facts["selinux"]["user_namespace_class"] is True
    assert "selinux" in facts["lsm"]
    assert "apparmor" not in facts["lsm"]
    # What Debian's policy gives to every account it does not name.
    context = facts["suite_context"]
    assert context["selinux"].startswith("unconfined_u:unconfined_r:unconfined_t:")
    assert context["apparmor"] is None


@as_root
def test_without_apparmor_its_variants_make_no_sense(run: RunResult) -> None:
    blocked = cell(run, SELINUX, "apparmor-userns-deny")
    assert (blocked.status, blocked.reason) == (Status.NOT_APPLICABLE, "no AppArmor")


def test_a_later_apparmor_denies_as_debian_13_s_does(run: RunResult) -> None:
    blocked = cell(run, FORKY, "apparmor-userns-deny")
    assert (blocked.status, blocked.cause, blocked.confidence) == ("xfail", "apparmor-userns-deny", "proved")
    assert blocked.facts["apparmor"]["userns_mediation"] is True
