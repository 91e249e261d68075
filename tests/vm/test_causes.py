"""Causes, live: cells that are blocked for different reasons, and for two at once, on guests that differ."""

import os
from pathlib import Path

import pytest

from lab import causes
from lab.catalog import Catalog
from lab.probes import Facts
from lab.record import CellResult, Outcome, RunResult, Status
from lab.verdict import words
from lab.verdict.words import FinishedCell, WordsVerdict
from tests.vm.conftest import RELEASE
from tests.vm.shared import SharedRun

PLAIN, PODMAN, SELINUX = "debian-13", "debian-13-podman", "debian-13-selinux"
# What the evidence must show in each cell, in the order in which boxlite meets it.
BLOCKED = {
    (PLAIN, "kvm-denied"): [("kvm-denied", "proved")],
    (PLAIN, "kvm-absent"): [("kvm-absent", "proved")],
    # The suite's profile is stacked on `unconfined`.
    (PLAIN, "apparmor-kvm-deny+apparmor-restrict-unconfined-on"): [("apparmor-kvm-deny", "proved")],
    (PLAIN, "home-noexec"): [("home-noexec", "proved")],
    (PLAIN, "apparmor-bwrap-exec-deny"): [("bwrap-exec-denied", "proved")],
    (PLAIN, "bwrap-setuid"): [("bwrap-setuid", "proved")],
    (PLAIN, "apparmor-bwrap-complain"): [("apparmor-disconnected", "proved")],
    (PLAIN, "apparmor-mount-deny"): [("apparmor-mount-deny", "proved")],
    (PLAIN, "apparmor-pivot-root-deny"): [("apparmor-mount-deny", "proved")],
    (PLAIN, "userns-clone-off+bwrap-absent"): [("userns-sysctl", "proved")],
    (PLAIN, "userns-clone-off+kvm-denied"): [("kvm-denied", "proved"), ("userns-sysctl", "proved")],
    (PLAIN, "max-pidns-zero"): [("namespace-limit", "proved")],
    (PLAIN, "max-userns-zero+apparmor-off"): [("userns-limit", "proved")],
    (PODMAN, "podman-no-namespaces"): [("seccomp", "proved"), ("masked-proc", "likely")],
    (PODMAN, "podman"): [("apparmor-userns-deny", "proved"), ("masked-proc", "likely")],
    (PODMAN, "podman-apparmor-off"): [("masked-proc", "proved")],
    # What is mounted on its own in the guest is so in a container too.
    (PODMAN, "podman-unconfined+home-noexec"): [("home-noexec", "proved")],
    (SELINUX, "selinux-userns-deny"): [("selinux-userns-deny", "proved")],
    (SELINUX, "selinux-mount-deny"): [("selinux-mount-deny", "proved")],
}
# Not blocked, but what else there is to be seen of the guest with SELinux.
OTHERS = [(SELINUX, "stock"), (SELINUX, "apparmor-userns-deny")]

# How boxlite's own words stand to that, where it is not right.
MISTOLD = {
    # It advises to join the group kvm, whose members this profile denies the device too.
    "apparmor-kvm-deny+apparmor-restrict-unconfined-on": WordsVerdict.WRONG_KNOB,
    "home-noexec": WordsVerdict.NOTHING,
    # boxlite's own check makes a user namespace and no pid namespace.
    "max-pidns-zero": WordsVerdict.NOTHING,
    "bwrap-setuid": WordsVerdict.UNKNOWN,
    "apparmor-bwrap-complain": WordsVerdict.UNKNOWN,
    "apparmor-mount-deny": WordsVerdict.UNKNOWN,
    "apparmor-pivot-root-deny": WordsVerdict.UNKNOWN,
}


def run_of(guest: str, *, seconds: float) -> SharedRun:
    """All cells of one guest."""
    variants = [variant for other, variant in (*BLOCKED, *OTHERS) if other == guest]
    words = ["-g", guest, *(word for variant in variants for word in ("-v", variant))]
    words += ["--no-remedies", "--no-experiment", "--build", RELEASE]
    return SharedRun(f"causes-{guest}", words, guests=[guest], seconds=seconds)


RUNS = {PLAIN: run_of(PLAIN, seconds=485), PODMAN: run_of(PODMAN, seconds=200)}
if os.geteuid() == 0:
    RUNS[SELINUX] = run_of(SELINUX, seconds=280)

# What blocks an older release and no longer RELEASE, so that the variant expects no failure. Another run stores
# the state after this build was deployed, so this one needs no boot.
OLDER = SharedRun(
    "older-release",
    [
        *("-g", PLAIN, "-v", "ca-bundle-symlink", "--build", "0.10.0"),
        *("--no-remedies", "--no-experiment"),
    ],
    guests=[PLAIN],
    seconds=140,
    after=["two-builds"],
    exit_status=1,
)


def reads(guest: str) -> pytest.MarkDecorator:
    """The mark of a test that reads the cells of a guest."""
    if guest not in RUNS:
        return pytest.mark.skip(reason="only root can build a guest with SELinux labels")
    return pytest.mark.shared(RUNS[guest])


def marks(guest: str) -> list[pytest.MarkDecorator]:
    """The same, as marks of a parameter; containers are left out of what each change runs."""
    return [reads(guest), *([pytest.mark.slow] if guest == PODMAN else [])]


each_blocked = pytest.mark.parametrize(
    ("guest", "variant"), [pytest.param(*key, marks=marks(key[0])) for key in BLOCKED]
)


def facts_of(cell: CellResult) -> Facts:
    assert cell.facts is not None
    return cell.facts


def cell(run: RunResult, guest: str, variant: str) -> CellResult:
    [found] = [each for each in run.cells if (each.guest, each.variant) == (guest, variant)]
    return found


@each_blocked
def test_every_cause_is_named_with_proof_and_exactly_its_tests_failed(
    run: RunResult, guest: str, variant: str, known: Catalog
) -> None:
    blocked, expected = cell(run, guest, variant), BLOCKED[guest, variant]
    assert [(found.name, str(found.confidence)) for found in blocked.causes] == expected
    first, _ = expected[0]
    assert (blocked.status, blocked.cause) == (Status.XFAIL, first), blocked.reason
    failed = {test.name for test in blocked.tests if test.outcome is not Outcome.PASS}
    assert failed == known.suite.needing(causes.known()[first].breaks)


@pytest.mark.slow
@pytest.mark.shared(OLDER)
def test_what_blocked_an_older_release_still_blocks_it(run: RunResult, folder: Path, known: Catalog) -> None:
    [blocked] = run.cells
    assert [(found.name, str(found.confidence)) for found in blocked.causes] == [("mount-symlink", "proved")]
    assert blocked.status is Status.FAIL, blocked.reason
    failed = {test.name for test in blocked.tests if test.outcome is not Outcome.PASS}
    assert failed == known.suite.needing(causes.known()["mount-symlink"].breaks)
    # What its suite wrote lies apart from what the kernel did.
    assert {file.name for file in (folder / blocked.folder / "suite").iterdir()} >= {
        "suite.log",
        "report.jsonl",
    }
    assert (folder / blocked.folder / "kernel.log").is_file()


@reads(PLAIN)
def test_kernel_arguments_have_a_lane_of_their_own_and_everything_else_shares_one(run: RunResult) -> None:
    lanes = {
        cell(run, guest, variant).lane
        for guest, variant in BLOCKED
        if guest == PLAIN and "apparmor-off" not in variant
    }
    booted = cell(run, PLAIN, "max-userns-zero+apparmor-off")
    assert booted.lane not in lanes
    assert facts_of(booted).command_line.endswith("apparmor=0")
    assert "apparmor" not in (facts_of(booted).lsm or ["apparmor"])
    assert "apparmor" in (facts_of(cell(run, PLAIN, "kvm-denied")).lsm or [])


@reads(PLAIN)
@pytest.mark.parametrize("variant", [variant for guest, variant in BLOCKED if guest == PLAIN])
def test_boxlites_own_diagnosis_is_read_and_judged(run: RunResult, folder: Path, variant: str) -> None:
    blocked = FinishedCell(cell(run, PLAIN, variant), folder)
    assert words.judge(blocked.result, blocked.words, {}) is MISTOLD.get(variant, WordsVerdict.RIGHT)


@reads(SELINUX)
def test_as_installed_it_passes_every_test_under_an_enforcing_selinux(run: RunResult) -> None:
    stock = cell(run, SELINUX, "stock")
    assert stock.status is Status.PASS, stock.reason
    facts = facts_of(stock)
    assert facts.virtualization is not None
    assert facts.selinux is not None
    assert (facts.selinux.mode, facts.selinux.policy) == ("enforcing", "default")
    assert facts.selinux.user_namespace_class is True
    assert facts.lsm is not None
    assert "selinux" in facts.lsm
    assert "apparmor" not in facts.lsm
    # What Debian's policy gives to every account it does not name: the suite ran as an ordinary login.
    assert stock.context is not None
    assert (stock.context.selinux or "").startswith("unconfined_u:unconfined_r:unconfined_t:")
    assert stock.context.apparmor is None


@reads(SELINUX)
def test_without_apparmor_its_variants_make_no_sense(run: RunResult) -> None:
    blocked = cell(run, SELINUX, "apparmor-userns-deny")
    assert (blocked.status, blocked.reason) == (Status.NOT_APPLICABLE, "no AppArmor")


@reads(SELINUX)
def test_a_policy_without_user_namespaces_is_loaded_beside_the_guests_own(run: RunResult) -> None:
    blocked = cell(run, SELINUX, "selinux-userns-deny")
    changed, plain = facts_of(blocked).selinux, facts_of(cell(run, SELINUX, "stock")).selinux
    assert changed is not None
    assert changed.mode == "enforcing"
    assert "lab" in changed.modules
    assert plain is not None
    assert "lab" not in plain.modules
