"""How the campaign of faults judges a run: what it calls untrue or left behind."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.record import Needs, Outcome, Status, TestResult
from tests.builders.cells import cell
from tests.builders.runs import run_of
from tests.campaign import tries
from tests.campaign.faults import FAULTS
from tests.campaign.host import Home

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
BROKEN = catalog.load().suite.needing(Needs.SANDBOX)


def test_the_docs_name_every_kind_of_fault_with_what_happens_and_its_promise() -> None:
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in FAULTS]
    assert {len(row) for row in rows} == {3}


def failing(names: Iterable[str]) -> list[TestResult]:
    return [TestResult(name=name, outcome=Outcome.FAIL) for name in names]


BLOCKED = {"status": Status.XFAIL, "cause": "userns-sysctl", "tests": failing(BROKEN)}
COULD_NOT: dict[str, Any] = {"status": Status.ERROR, "cause": None, "tests": []}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        (COULD_NOT | {"reason": "QEMU is gone"}, ""),
        (COULD_NOT | {"reason": " "}, "is error without a reason"),
        ({"status": Status.PASS, "cause": None}, "is pass None"),
        ({"cause": "kvm-denied"}, "is xfail kvm-denied"),
        ({"tests": failing(sorted(BROKEN)[1:])}, "these tests failed"),
        ({"variant": "stock"}, "the cells are those of"),
    ],
)
def test_a_run_is_true_if_its_cells_are_blocked_as_they_must_be_or_say_why_they_could_not_run(
    changed: dict[str, Any], told: str
) -> None:
    other = cell("debian-13", "kvm-denied", status=Status.NOT_RUN, reason="interrupted")
    own = cell("debian-13", "userns-clone-off").model_copy(update=BLOCKED | changed)
    findings = tries.untrue(run_of(own, other))
    assert bool(findings) is bool(told)
    assert told in "".join(findings)
    assert (own.name in tries.unfinished(run_of(own, other))) is (own.status is Status.ERROR)


@pytest.mark.parametrize(
    ("file", "is_left", "is_left_once_resumed"),
    [
        ("state/lanes/.gate", False, False),
        ("state/lanes/lab-debian-13-0a1b2c/overlay.qcow2", True, True),
        ("state/unknown/overlay.qcow2", True, True),
        ("cache/states/.partial-debian-13-77/state.qcow2", True, True),
        ("tmp/boxlite-lab-tmp-1/x", True, True),
        # No other command knows of the run's folder.
        ("out/run/.lock", False, True),
    ],
)
def test_folders_and_half_written_files_are_found(
    tmp_path: Path, file: str, is_left: bool, is_left_once_resumed: bool
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    assert home.files_left(resumed=True) == []
    (home.base / file).parent.mkdir(parents=True)
    (home.base / file).touch()
    assert bool(home.files_left(resumed=False)) is is_left
    assert bool(home.files_left(resumed=True)) is is_left_once_resumed
