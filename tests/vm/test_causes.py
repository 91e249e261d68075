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

# The runs; all cells of a run are of one guest. Each change makes the first one, root also the last.
PLAIN, MORE, PODMAN, DOCKER = "causes-plain", "causes-more", "causes-podman", "causes-docker"
SELINUX = "causes-selinux"
GUESTS = {
    **{PLAIN: "debian-13", MORE: "debian-13", SELINUX: "debian-13-selinux"},
    **{PODMAN: "debian-13-podman", DOCKER: "debian-13-docker"},
}
# What the evidence must show in each cell, in the order in which boxlite meets it.
BLOCKED = {
    (PLAIN, "home-noexec"): [("home-noexec", "proved")],
    (PLAIN, "bwrap-setuid"): [("bwrap-setuid", "proved")],
    (PLAIN, "apparmor-bwrap-complain"): [("apparmor-disconnected", "proved")],
    (PLAIN, "apparmor-mount-deny"): [("apparmor-mount-deny", "proved")],
    # Several settings that block, of which boxlite meets the last behind the others.
    (PLAIN, "service-hardened"): [
        ("service-without-kvm", "proved"),
        ("service-restricts-namespaces", "proved"),
        ("service-filters-calls", "proved"),
        ("service-masks-proc", "likely"),
    ],
    (PLAIN, "userns-clone-off+bwrap-absent"): [("userns-sysctl", "proved")],
    (PLAIN, "userns-clone-off+kvm-denied"): [("kvm-denied", "proved"), ("userns-sysctl", "proved")],
    # Each of these is made as a cell above or of the shared run `matrix` is, or takes a boot of its own.
    (MORE, "kvm-denied"): [("kvm-denied", "proved")],
    (MORE, "kvm-absent"): [("kvm-absent", "proved")],
    (MORE, "kvm-masked"): [("kvm-unusable", "proved")],
    (MORE, "socket-folder-foreign"): [("socket-folder", "proved")],
    # The suite's profile is stacked on `unconfined`.
    (MORE, "apparmor-kvm-deny+apparmor-restrict-unconfined-on"): [("apparmor-kvm-deny", "proved")],
    (MORE, "apparmor-userns-deny"): [("apparmor-userns-deny", "proved")],
    (MORE, "apparmor-bwrap-exec-deny"): [("bwrap-exec-denied", "proved")],
    (MORE, "apparmor-pivot-root-deny"): [("apparmor-mount-deny", "proved")],
    (MORE, "max-pidns-zero"): [("namespace-limit", "proved")],
    (MORE, "service-restrict-namespaces"): [("service-restricts-namespaces", "proved")],
    (MORE, "max-userns-zero+apparmor-off"): [("userns-limit", "proved")],
    (PODMAN, "podman-no-namespaces"): [("seccomp", "proved"), ("masked-proc", "likely")],
    (PODMAN, "podman"): [("apparmor-userns-deny", "proved"), ("masked-proc", "likely")],
    (PODMAN, "podman-apparmor-off"): [("masked-proc", "proved")],
    # What is mounted on its own in the guest is so in a container too.
    (PODMAN, "podman-unconfined+home-noexec"): [("home-noexec", "proved")],
    (DOCKER, "docker"): [
        ("container-without-kvm", "proved"),
        ("seccomp", "proved"),
        ("masked-proc", "likely"),
    ],
    (DOCKER, "docker-kvm"): [("seccomp", "proved"), ("masked-proc", "likely")],
    (SELINUX, "selinux-userns-deny"): [("selinux-userns-deny", "proved")],
    (SELINUX, "selinux-mount-deny"): [("selinux-mount-deny", "proved")],
}
# Not blocked, but what else there is to be seen of the guest with SELinux.
OTHERS = [(SELINUX, "stock"), (SELINUX, "apparmor-userns-deny"), (PODMAN, "session-user-unit")]

# How boxlite's own words stand to that, where it is not right.
MISTOLD = {
    # It advises to join the group kvm, whose members this profile denies the device too.
    "apparmor-kvm-deny+apparmor-restrict-unconfined-on": WordsVerdict.WRONG_KNOB,
    "home-noexec": WordsVerdict.NOTHING,
    # boxlite's own check makes a user namespace and no pid namespace.
    "max-pidns-zero": WordsVerdict.NOTHING,
    "bwrap-setuid": WordsVerdict.UNKNOWN,
    "apparmor-userns-deny": WordsVerdict.UNKNOWN,
    "apparmor-bwrap-complain": WordsVerdict.UNKNOWN,
    "apparmor-mount-deny": WordsVerdict.UNKNOWN,
    "apparmor-pivot-root-deny": WordsVerdict.UNKNOWN,
    "service-restrict-namespaces": WordsVerdict.UNKNOWN,
    # It says that there is no KVM, and advises to load its module.
    "service-hardened": WordsVerdict.WRONG_KNOB,
}


def made(name: str, *, seconds: float) -> SharedRun:
    """The run with all cells of this name."""
    variants = [variant for other, variant in (*BLOCKED, *OTHERS) if other == name]
    words = ["-g", GUESTS[name], *(word for variant in variants for word in ("-v", variant))]
    words += ["--no-remedies", "--no-experiment", "--build", RELEASE]
    return SharedRun(name, words, guests=[GUESTS[name]], seconds=seconds)


SECONDS = {PLAIN: 265, MORE: 455, PODMAN: 260, DOCKER: 260, SELINUX: 280}
RUNS = {name: made(name, seconds=seconds) for name, seconds in SECONDS.items()}

# What blocks an older release and no longer RELEASE, so that the variant expects no failure. Another run stores
# the state after this build was deployed, so this one needs no boot.
OLDER = SharedRun(
    "older-release",
    [
        *("-g", GUESTS[PLAIN], "-v", "ca-bundle-symlink", "--build", "0.10.0"),
        *("--no-remedies", "--no-experiment"),
    ],
    guests=[GUESTS[PLAIN]],
    seconds=140,
    after=["two-builds"],
    exit_status=1,
)


def marks(name: str) -> list[pytest.MarkDecorator]:
    """The marks of a parameter that reads a run: its name's, and those of what is left out."""
    if name == SELINUX and os.geteuid() != 0:
        return [pytest.mark.skip(reason="only root can build a guest with SELinux labels")]
    return [pytest.mark.shared(RUNS[name]), *([pytest.mark.slow] if name in (MORE, PODMAN, DOCKER) else [])]


def reads(*names: str) -> pytest.MarkDecorator:
    """The mark of a test that is made once for each of these runs."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in names])


def blocked(name: str) -> list[str]:
    return [variant for other, variant in BLOCKED if other == name]


def facts_of(cell: CellResult) -> Facts:
    assert cell.facts is not None
    return cell.facts


def cell(run: RunResult, variant: str) -> CellResult:
    [of_variant] = [one for one in run.cells if one.variant == variant]
    return of_variant


def failed(cell: CellResult) -> set[str]:
    return {test.name for test in cell.tests if test.outcome is not Outcome.PASS}


@pytest.mark.parametrize(("name", "variant"), [pytest.param(*key, marks=marks(key[0])) for key in BLOCKED])
def test_every_cause_is_named_with_proof_and_exactly_its_tests_failed(
    run: RunResult, name: str, variant: str, definitions: Catalog
) -> None:
    its, expected = cell(run, variant), BLOCKED[name, variant]
    assert [(cause.name, str(cause.confidence)) for cause in its.causes] == expected
    first, _ = expected[0]
    assert (its.status, its.cause) == (Status.XFAIL, first), its.reason
    assert failed(its) == definitions.suite.needing(causes.list_causes()[first].breaks)


@pytest.mark.slow
@pytest.mark.shared(OLDER)
def test_what_blocked_an_older_release_blocks_it(run: RunResult, folder: Path, definitions: Catalog) -> None:
    [its] = run.cells
    assert [(cause.name, str(cause.confidence)) for cause in its.causes] == [("mount-symlink", "proved")]
    assert its.status is Status.FAIL, its.reason
    assert failed(its) == definitions.suite.needing(causes.list_causes()["mount-symlink"].breaks)
    # What its suite wrote lies apart from what the kernel did.
    written = {file.name for file in (folder / its.folder / "suite").iterdir()}
    assert written >= {"suite.log", "report.jsonl"}
    assert (folder / its.folder / "kernel.log").is_file()


@reads(MORE)
def test_only_kernel_arguments_have_a_lane_of_their_own(run: RunResult, name: str) -> None:
    lanes = {cell(run, variant).history.lane for variant in blocked(name) if "apparmor-off" not in variant}
    booted = cell(run, "max-userns-zero+apparmor-off")
    assert booted.history.lane not in lanes
    assert facts_of(booted).command_line.endswith("apparmor=0")
    assert "apparmor" not in (facts_of(booted).lsm or ["apparmor"])
    assert "apparmor" in (facts_of(cell(run, "kvm-denied")).lsm or [])


@reads(PLAIN, MORE)
def test_boxlites_own_diagnosis_is_read_and_judged(run: RunResult, folder: Path, name: str) -> None:
    verdicts = {}
    for variant in blocked(name):
        finished = FinishedCell(cell(run, variant), folder)
        verdicts[variant] = words.judge_words(finished.result, finished.words, {})
    assert verdicts == {variant: MISTOLD.get(variant, WordsVerdict.RIGHT) for variant in blocked(name)}


@reads(PODMAN)
def test_a_suite_runs_in_a_unit_of_its_users_service_manager(run: RunResult, name: str) -> None:
    its = cell(run, "session-user-unit")
    assert its.status is Status.PASS, its.reason
    assert its.suite.context is not None
    session = its.suite.context.session
    manager = "/user.slice/user-1001.slice/user@1001.service"
    assert (session.kind, session.cgroup) == ("user unit", f"{manager}/app.slice/*.service")
    assert (session.manager, session.login_class) == (True, None)


@reads(SELINUX)
def test_under_an_enforcing_selinux_it_passes_as_installed_and_a_policy_is_loaded_beside_the_guests_own(
    run: RunResult, name: str
) -> None:
    stock = cell(run, "stock")
    assert stock.status is Status.PASS, stock.reason
    facts = facts_of(stock)
    assert facts.virtualization is not None
    assert facts.selinux is not None
    assert (facts.selinux.mode, facts.selinux.policy) == ("enforcing", "default")
    assert facts.selinux.user_namespace_class is True
    assert "lab" not in facts.selinux.modules
    assert facts.lsm is not None
    assert "selinux" in facts.lsm
    assert "apparmor" not in facts.lsm
    # What Debian's policy gives to every account it does not name: the suite ran as an ordinary login.
    assert stock.suite.context is not None
    assert (stock.suite.context.selinux or "").startswith("unconfined_u:unconfined_r:unconfined_t:")
    assert stock.suite.context.apparmor is None

    without_apparmor = cell(run, "apparmor-userns-deny")
    assert (without_apparmor.status, without_apparmor.reason) == (Status.NOT_APPLICABLE, "no AppArmor")

    changed = facts_of(cell(run, "selinux-userns-deny")).selinux
    assert changed is not None
    assert changed.mode == "enforcing"
    assert "lab" in changed.modules
