"""boxlite's program and its npm package in three releases of Debian, also with a blocked sandbox."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.catalog import load_suite
from lab.record import CellResult, Confidence, Needs, Outcome, RunResult, Status
from tests.vm import stand_in
from tests.vm.conftest import run_lab

pytestmark = [pytest.mark.program_and_npm, pytest.mark.timeout(3600)]

Run = Callable[..., dict[tuple[str, str], CellResult]]


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    """`lab matrix` with stock and userns-clone-off on some guests; gives the cells by guest and variant."""

    def matrix(build: str, *guests: str) -> dict[tuple[str, str], CellResult]:
        folder = home / "runs" / build.partition(":")[0]
        words = [word for guest in guests for word in ("-g", guest)]
        words += ["-v", "stock", "-v", "userns-clone-off", "--no-remedies", "--no-experiment", "--jobs", "1"]
        done = run_lab(home, "matrix", *words, "--build", build, "-o", folder, status=None, seconds=3600)
        assert done.returncode in (0, 1), done.stderr
        return {(cell.guest, cell.variant): cell for cell in RunResult.read(folder).cells}

    return matrix


def check(cells: dict[tuple[str, str], CellResult], suite_name: str, guest: str) -> None:
    """A guest as installed passes every test; without user namespaces just the tests of the sandbox fail."""
    suite = load_suite(suite_name)
    stock, blocked = cells[guest, "stock"], cells[guest, "userns-clone-off"]
    assert stock.status is Status.PASS, stock.reason
    assert {test.name for test in stock.tests} == set(suite.tests)
    isolated = next(test for test in stock.tests if test.name == suite.witness)
    assert isolated.protection
    assert "user" in isolated.protection.namespaces
    assert blocked.status is Status.XFAIL, blocked.reason
    assert (blocked.cause, blocked.verdict.confidence) == ("userns-sysctl", Confidence.PROVED)
    failed = {test.name for test in blocked.tests if test.outcome is not Outcome.PASS}
    assert failed == suite.needing(Needs.SANDBOX)


def test_the_npm_package_runs_under_the_node_of_each_release(run: Run) -> None:
    cells = run("npm:0.10.0", "debian-13", "debian-12", "debian-11")
    check(cells, "npm", "debian-13")
    check(cells, "npm", "debian-12")
    assert cells["debian-11", "stock"].status is Status.NOT_APPLICABLE
    assert "needs Node 18.0.0 or newer" in cells["debian-11", "stock"].reason


def test_a_program_runs_where_boxlite_has_no_wheel(run: Run, home: Path, paths: Paths) -> None:
    if not stand_in.possible():
        pytest.skip("this host has no gcc or no npm to make the stand-in with")
    program = stand_in.make(paths, home / "boxlite")
    cells = run(f"cli:{program}", "debian-13", "debian-11")
    check(cells, "cli", "debian-13")
    # The release's bubblewrap, 0.4.1, is too old for boxlite's sandbox.
    old = cells["debian-11", "stock"]
    assert (old.status, old.cause, old.verdict.confidence) == (Status.FAIL, "bwrap-too-old", Confidence.PROVED)
    failed = {test.name for test in old.tests if test.outcome is not Outcome.PASS}
    assert failed == load_suite("cli").needing(Needs.SANDBOX)
    assert cells["debian-11", "userns-clone-off"].status is Status.XFAIL
