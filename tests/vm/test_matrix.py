"""The main job: the set quick, through the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lab.builds import shuffle_tests
from lab.catalog import Catalog
from lab.machine.acceleration import EMULATION
from lab.machine.clock import RATE
from lab.probes.facts import Facts
from lab.record import CellResult, Outcome, RunResult, Status
from lab.verdict import protection
from tests.vm.conftest import ONE_KNOB, RELEASE, TRIES
from tests.vm.shared import SharedRun, SharedRuns

GUESTS = ("debian-12", "debian-13")
SANDBOX_TESTS = {
    "jailer_enabled_box_starts_and_executes",
    "host_network_grants_off_box_starts_and_executes",
    "jailer_creates_isolated_mount_namespace",
    "maximum_security_box_starts_and_executes",
}


# Of the variants the one that touches the guest in the most ways.
COLD_VARIANT = "apparmor-userns-nocaps"

MATRIX = SharedRun(
    "matrix", ["--set", "quick", "--build", RELEASE], guests=["debian-13", "debian-12"], seconds=420
)
COLD = SharedRun(
    "cold",
    ["-g", "debian-13", "-v", COLD_VARIANT, "--cold", "--build", RELEASE],
    guests=["debian-13"],
    seconds=100,
)
TWO_BUILDS = SharedRun(
    "two-builds",
    [
        *("-g", "debian-13", "-v", "userns-clone-off", "--build", "0.10.0", "--build", RELEASE),
        *("--no-remedies", "--repeat", "2", "--shuffle=4711"),
    ],
    guests=["debian-13"],
    seconds=160,
)
reads_matrix = pytest.mark.shared(MATRIX)


def cell(run: RunResult, guest: str, variant: str) -> CellResult:
    [of_both] = [c for c in run.cells if (c.guest, c.variant) == (guest, variant)]
    return of_both


# What Linux says of a clock that it does not trust, and of a processor that it takes for hung.
COMPLAINTS = re.compile(
    r"clocksource: .*unstable|stalls? on CPU|soft lockup|hung task|blocked for more|MP-BIOS bug|Kernel panic"
)
# boxlite's names of boxes, and those of the tests' homes.
NAMES = re.compile(r"box-[^/\s]+|(?<=boxes/)[^/\s]+")


def nameless(file: Path) -> list[str]:
    return sorted(set(NAMES.sub("NAME", file.read_text()).splitlines()))


def named(facts: Facts | None) -> dict[str, Any]:
    """Facts by their names, without the size of a tmpfs.

    Linux shows that where it is not half of the memory that there is now, which may be some pages more than
    there were when it was mounted.
    """
    assert facts
    made = facts.model_dump()
    for mount in made["mounts"].values():
        mount["options"] = [option for option in mount["options"] if not option.startswith("size=")]
    return made


def kinds_of_files(folder: Path) -> set[str]:
    """The evidence of a cell itself, without that of its trials and repeats."""
    files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    return {NAMES.sub("NAME", name) for name in files if not name.startswith(("remedies/", "experiment/"))}


def failed(cell: CellResult) -> set[str]:
    return {test.name for test in cell.tests if test.outcome is Outcome.FAIL}


@reads_matrix
@pytest.mark.parametrize("guest", GUESTS)
def test_stock_debian_passes_every_test(run: RunResult, guest: str, definitions: Catalog) -> None:
    stock = cell(run, guest, "stock")
    assert stock.status is Status.PASS, stock.reason
    assert [(test.name, test.outcome) for test in stock.tests] == [
        (name, Outcome.PASS) for name in definitions.suite.tests
    ]


@reads_matrix
@pytest.mark.parametrize("guest", GUESTS)
def test_a_login_of_stock_debian_is_a_session_with_a_service_manager(run: RunResult, guest: str) -> None:
    context = cell(run, guest, "stock").suite.context
    assert context is not None
    assert (context.session.kind, context.session.manager) == ("login", True)
    assert {"memory", "pids"} <= set(context.delegated)


@reads_matrix
def test_guests_whose_clock_is_slower_have_content_kernels(run: RunResult, folder: Path) -> None:
    logs = [file for name in ("console.log", "kernel.log") for file in folder.rglob(name)]
    assert logs
    assert [line for file in logs for line in COMPLAINTS.findall(file.read_text(errors="replace"))] == []
    emulated = [lane for lane in run.run.lanes if lane.host and lane.host.acceleration == EMULATION]
    assert {lane.clock for lane in emulated} <= {RATE}


@reads_matrix
@pytest.mark.parametrize("guest", GUESTS)
def test_what_confines_each_box_was_seen_from_outside(run: RunResult, guest: str, definitions: Catalog) -> None:
    tests = {test.name: test.protection for test in cell(run, guest, "stock").tests}
    for name in SANDBOX_TESTS:
        seen = tests.pop(name)
        assert seen, name
        assert {"mnt", "user", "pid", "ipc", "uts"} <= set(seen.namespaces)
        assert seen.no_new_privs
        assert "HOME/boxes/BOX/tmp rw" in seen.mounts
        assert seen.program in [process.program for process in seen.processes]
        # A filter that was asked for is missed only where boxlite says so.
        unmet = protection.list_unmet_options(seen)
        filters = [str(option) for option in unmet if option.option == "seccomp_enabled"]
        assert len(filters) == (name != "host_network_grants_off_box_starts_and_executes")
        assert all("Seccomp disabled for network-enabled VM" in text for text in filters)
    control = tests.pop(definitions.suite.control)
    assert control
    assert (control.namespaces, control.no_new_privs) == ([], False)
    assert set(tests.values()) == {None}


@reads_matrix
@pytest.mark.parametrize(
    ("guest", "variant", "cause", "evidence"),
    [
        ("debian-12", "userns-clone-off", "userns-sysctl", "kernel.unprivileged_userns_clone = 0"),
        ("debian-13", "userns-clone-off", "userns-sysctl", "kernel.unprivileged_userns_clone = 0"),
        ("debian-12", "max-userns-zero", "userns-limit", "user.max_user_namespaces = 0"),
        ("debian-13", "max-userns-zero", "userns-limit", "user.max_user_namespaces = 0"),
        ("debian-13", "apparmor-userns-nocaps", "apparmor-userns-nocaps", 'capname="setpcap"'),
    ],
)
def test_a_blocked_sandbox_is_named_with_proof(
    run: RunResult, folder: Path, guest: str, variant: str, cause: str, evidence: str
) -> None:
    blocked = cell(run, guest, variant)
    assert (blocked.status, blocked.cause, blocked.verdict.confidence) == ("xfail", cause, "proved")
    assert failed(blocked) == SANDBOX_TESTS
    texts = [(folder / name).read_text(errors="replace") for name in blocked.evidence]
    assert any(evidence in text for text in texts)
    own = [folder / name for name in blocked.evidence if (folder / name).parent == folder / blocked.folder]
    assert [file.name for file in own if not file.stat().st_size] == []
    # What boxlite itself logged is there as well, whatever it says.
    assert any("boxlite.log" in name for name in blocked.evidence)


@reads_matrix
def test_each_cell_knows_what_it_ran_on_and_came_from_a_checkpoint_of_memory(run: RunResult) -> None:
    for one in run.cells:
        assert one.facts is not None
        assert one.facts.os.id == "debian"
        assert one.facts.os.version_id == one.guest.removeprefix("debian-")
        assert one.rerun.startswith(f"lab matrix -g {one.guest} -v {one.variant} ")
    assert run.run.host is not None
    assert all(len(digest) == 64 for digest in run.run.builds[0].files.values())
    # A guest has a second lane if a machine died or if the host has room for one: each forks from memory.
    assert {(lane.guest, lane.fork) for lane in run.run.lanes} == {(guest, "memory") for guest in GUESTS}
    assert {one.suite.fork for one in run.cells if one.tests} == {"memory"}


@pytest.mark.shared(MATRIX, TRIES[ONE_KNOB])
def test_a_later_run_takes_up_a_deployed_build(run: RunResult, shared_runs: SharedRuns) -> None:
    later = shared_runs.result(TRIES[ONE_KNOB])
    [lane] = later.run.lanes
    assert (lane.restored, lane.stored_build, lane.fork, lane.note) == (True, True, "memory", "")
    assert "deploy" not in lane.seconds
    # It says what was deployed all the same.
    assert later.run.builds[0].files.items() <= run.run.builds[0].files.items()
    earlier = cell(run, "debian-13", ONE_KNOB)
    [one] = later.cells
    assert one.verdict.confidence == earlier.verdict.confidence
    assert (one.status, one.cause) == (earlier.status, earlier.cause)
    assert one.facts == earlier.facts


@pytest.mark.slow
@pytest.mark.shared(MATRIX, COLD)
def test_a_cold_cell_agrees_with_a_forked_one_in_which_the_agent_did_the_labs_work(
    run: RunResult, folder: Path, shared_runs: SharedRuns
) -> None:
    cold = shared_runs.result(COLD)
    [one] = cold.cells
    forked = cell(run, "debian-13", COLD_VARIANT)
    assert (forked.suite.fork, one.suite.fork) == ("memory", "cold")
    assert {lane.agent for lane in run.run.lanes} == {True}
    assert [lane.agent for lane in cold.run.lanes] == [False]
    assert named(one.facts) == named(forked.facts)
    assert (one.suite.context, one.causes) == (forked.suite.context, forked.causes)
    ours, theirs = folder / forked.folder, shared_runs.folder(COLD) / one.folder
    assert kinds_of_files(ours) == kinds_of_files(theirs)
    for name in ("sysctls.txt", "apparmor-profiles.txt", "modes.txt"):
        assert nameless(ours / name) == nameless(theirs / name)
    ours_probed, theirs_probed = (json.loads((of / "probes.json").read_text()) for of in (ours, theirs))
    assert ours_probed == theirs_probed
    assert {t.name: t.outcome for t in one.tests} == {t.name: t.outcome for t in forked.tests}
    assert one.verdict.confidence == forked.verdict.confidence
    assert (one.status, one.cause) == (forked.status, forked.cause)


@pytest.mark.slow
@pytest.mark.shared(TWO_BUILDS)
def test_two_builds_run_side_by_side_on_one_lane_and_repeats_agree(run: RunResult, folder: Path) -> None:
    assert [(c.build, c.status, len(c.suite.repeats)) for c in run.cells] == [
        ("0.10.0", Status.XFAIL, 2),
        (RELEASE, Status.XFAIL, 2),
    ]
    assert len(run.run.lanes) == 1
    deployed = [build.files for build in run.run.builds]
    assert [sum(name.startswith("boxlite-") for name in files) for files in deployed] == [1, 1]
    for one in run.cells:
        assert any("/repeat-2/" in name for name in one.evidence)
        assert {(rate.ran, rate.failed) for rate in one.suite.rates} == {(2, 0), (2, 2)}
        for seed, place in (4711, ""), (4712, "repeat-2"):
            report = (folder / one.folder / place / "suite/report.jsonl").read_text()
            entries = [json.loads(line) for line in report.splitlines()]
            ran = [entry["nodeid"].partition("::")[2] for entry in entries if entry.get("when") == "setup"]
            assert ran == shuffle_tests([test.name for test in one.tests], seed)
