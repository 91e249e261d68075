"""An experiment, live: of a cell with two settings that block, both are found, and neither alone."""

from pathlib import Path

import pytest

from lab.catalog import Catalog
from lab.record import CellResult, Experiment, Needs, RunResult, StepOutcome
from tests.vm.conftest import TRIES, TWO_KNOBS

pytestmark = [pytest.mark.slow, pytest.mark.shared(TRIES[TWO_KNOBS])]

LIMIT, CLONE = "without sysctl user.max_user_namespaces=0", "without sysctl kernel.unprivileged_userns_clone=0"


@pytest.fixture
def cell(run: RunResult) -> CellResult:
    [found] = run.cells
    return found


@pytest.fixture
def made(cell: CellResult) -> Experiment:
    assert cell.experiment is not None
    return cell.experiment


def test_the_smallest_change_that_turns_it_is_both_settings(made: Experiment, definitions: Catalog) -> None:
    assert made.turning == [[LIMIT, CLONE]]
    assert [(step.changes, step.outcome) for step in made.steps] == [
        ([], StepOutcome.FAILS),
        ([LIMIT], StepOutcome.FAILS),
        ([CLONE], StepOutcome.FAILS),
        ([LIMIT, CLONE], StepOutcome.PASSES),
    ]
    assert set(made.tests) == definitions.suite.needing(Needs.SANDBOX)


def test_a_cause_that_the_evidence_made_likely_is_proved_by_it(cell: CellResult) -> None:
    # The sysctl keeps the kernel from coming to the limit, so that no probe proves that.
    sysctl, limit = cell.causes
    assert (sysctl.name, str(sysctl.confidence)) == ("userns-sysctl", "proved")
    assert (limit.name, str(limit.confidence)) == ("userns-limit", "proved")
    assert limit.why == f"user.max_user_namespaces is 0; by experiment, what failed passes {LIMIT} and {CLONE}"


def test_every_fork_left_its_evidence(made: Experiment, folder: Path) -> None:
    for number in range(1, len(made.steps) + 1):
        report = next(
            file for file in made.evidence if file.endswith(f"/experiment/{number:02}/suite/junit.xml")
        )
        assert "jailer_enabled_box_starts_and_executes" in (folder / report).read_text()


def test_the_page_says_it_in_a_line(cell: CellResult, folder: Path) -> None:
    page = (folder / "matrix.md").read_text()
    assert "- by experiment: what failed passes without sysctl user.max" in page
