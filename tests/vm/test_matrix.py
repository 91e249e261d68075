"""The main job: debian-12 and debian-13 in the variants of the set quick, through the command line."""

from pathlib import Path

import pytest

from lab.catalog import Catalog
from lab.record import CellResult, Outcome, RunResult, Status
from tests.vm.conftest import RELEASE, RunCells, run_matrix

GUESTS = ("debian-12", "debian-13")
SANDBOX_TESTS = {
    "jailer_enabled_box_starts_and_executes",
    "host_network_grants_off_box_starts_and_executes",
    "jailer_creates_isolated_mount_namespace",
    "maximum_security_box_starts_and_executes",
}


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    return home / "matrix"


@pytest.fixture(scope="module")
def run(home: Path, folder: Path) -> RunResult:
    words = [word for guest in GUESTS for word in ("-g", guest)]
    return run_matrix(home, folder, "--set", "quick", *words, "--build", RELEASE, seconds=1500)


def cell(run: RunResult, guest: str, variant: str) -> CellResult:
    [found] = [c for c in run.cells if (c.guest, c.variant) == (guest, variant)]
    return found


def failed(found: CellResult) -> set[str]:
    return {test.name for test in found.tests if test.outcome is Outcome.FAIL}


@pytest.mark.parametrize("guest", GUESTS)
def test_stock_debian_passes_every_test(run: RunResult, guest: str, known: Catalog) -> None:
    stock = cell(run, guest, "stock")
    assert stock.status is Status.PASS, stock.reason
    assert [(test.name, test.outcome) for test in stock.tests] == [
        (name, Outcome.PASS) for name in known.suite.tests
    ]


@pytest.mark.parametrize(
    ("guest", "variant", "cause", "evidence"),
    [
        ("debian-12", "userns-clone-off", "userns-sysctl", "kernel.unprivileged_userns_clone = 0"),
        ("debian-13", "userns-clone-off", "userns-sysctl", "kernel.unprivileged_userns_clone = 0"),
        ("debian-12", "max-userns-zero", "userns-limit", "user.max_user_namespaces = 0"),
        ("debian-13", "max-userns-zero", "userns-limit", "user.max_user_namespaces = 0"),
        ("debian-13", "apparmor-userns-deny", "apparmor-userns-deny", 'operation="userns_create"'),
        ("debian-13", "apparmor-userns-nocaps", "apparmor-userns-nocaps", 'capname="sys_admin"'),
    ],
)
def test_a_blocked_sandbox_is_named_with_proof(
    run: RunResult, folder: Path, guest: str, variant: str, cause: str, evidence: str
) -> None:
    blocked = cell(run, guest, variant)
    assert (blocked.status, blocked.cause, blocked.confidence) == ("xfail", cause, "proved")
    assert failed(blocked) == SANDBOX_TESTS
    texts = [(folder / name).read_text(errors="replace") for name in blocked.evidence]
    assert any(evidence in text for text in texts)
    own = [folder / name for name in blocked.evidence if (folder / name).parent == folder / blocked.folder]
    assert [file.name for file in own if not file.stat().st_size] == []
    # What boxlite itself logged is there as well, whatever it says.
    assert any("boxlite.log" in name for name in blocked.evidence)


@pytest.mark.parametrize("variant", ["apparmor-userns-deny", "apparmor-userns-nocaps"])
def test_a_guest_whose_apparmor_is_too_old_is_not_applicable(run: RunResult, variant: str) -> None:
    old = cell(run, "debian-12", variant)
    assert old.status is Status.NOT_APPLICABLE
    assert "does not mediate user namespaces" in old.reason
    assert old.tests == []


def test_each_cell_knows_what_it_ran_on(run: RunResult) -> None:
    for found in run.cells:
        assert found.facts["os"]["ID"] == "debian"
        assert found.facts["os"]["VERSION_ID"] == found.guest.removeprefix("debian-")
        assert found.rerun.startswith(f"lab matrix -g {found.guest} -v {found.variant} ")
    assert run.run.host is not None
    assert all(len(digest) == 64 for digest in run.run.builds[0].files.values())


def test_forked_cells_came_from_a_checkpoint_of_memory(run: RunResult) -> None:
    assert [(lane.guest, lane.fork, lane.note) for lane in sorted(run.run.lanes, key=lambda x: x.guest)] == [
        (guest, "memory", "") for guest in GUESTS
    ]


def test_a_later_run_takes_up_the_deployed_build_of_an_earlier_one(run: RunResult, home: Path) -> None:
    words = ["-g", "debian-13", "-v", "userns-clone-off", "--no-remedies", "--build", RELEASE]
    later = run_matrix(home, home / "later", *words, seconds=600)
    [lane] = later.run.lanes
    assert (lane.restored, lane.stored_build, lane.fork, lane.note) == (True, True, "memory", "")
    assert "deploy" not in lane.seconds
    # It says what was deployed all the same.
    assert later.run.builds[0].files.items() <= run.run.builds[0].files.items()
    earlier = cell(run, "debian-13", "userns-clone-off")
    [found] = later.cells
    assert (found.status, found.cause, found.confidence) == (earlier.status, earlier.cause, earlier.confidence)
    assert found.facts == earlier.facts


def test_a_cold_cell_agrees_with_a_forked_one(run: RunResult, run_cells: RunCells, known: Catalog) -> None:
    # The variant that touches the guest in the most ways.
    cold = run_cells([known.guest("debian-13")], ["apparmor-userns-nocaps"], cold=True)
    [one] = cold.cells
    forked = cell(run, one.guest, one.variant)
    assert (forked.fork, one.fork) == ("memory", "cold")
    assert one.facts == forked.facts
    assert {t.name: t.outcome for t in one.tests} == {t.name: t.outcome for t in forked.tests}
    assert (one.status, one.cause, one.confidence) == (forked.status, forked.cause, forked.confidence)


def test_two_builds_run_side_by_side_on_one_lane_and_repeats_agree(home: Path) -> None:
    words = ["-g", "debian-13", "-v", "userns-clone-off", "--build", "0.10.0", "--build", RELEASE]
    words += ["--no-remedies", "--repeat", "2"]
    result = run_matrix(home, home / "two-builds", *words, seconds=900)
    assert [(c.build, c.status, len(c.repeats)) for c in result.cells] == [
        ("0.10.0", Status.XFAIL, 2),
        (RELEASE, Status.XFAIL, 2),
    ]
    assert len(result.run.lanes) == 1
    deployed = [build.files for build in result.run.builds]
    assert [sum(name.startswith("boxlite-") for name in files) for files in deployed] == [1, 1]
    for each in result.cells:
        assert any("/repeat-2/" in name for name in each.evidence)
