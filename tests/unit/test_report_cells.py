"""What a report says of each cell: a run with everything, as the terminal and matrix.md show it.

To accept what a change does to them: python -m tests.unit.test_report_cells
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.record import (
    CellResult,
    Confidence,
    Experiment,
    ExperimentStep,
    Finding,
    LaneRecord,
    NotTried,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunResult,
    Status,
    StepOutcome,
    TestResult,
)
from lab.report import markdown, table
from tests.builders.cells import cell
from tests.builders.facts import facts
from tests.builders.output import FAULT, FLAKY, XFAIL, printed
from tests.builders.runs import run_of

GOLDEN = Path(__file__).parent / "data" / "reports"


def step(outcome: StepOutcome, *changes: str) -> ExperimentStep:
    return ExperimentStep(changes=list(changes), outcome=outcome)


PASSES, FAILS = StepOutcome.PASSES, StepOutcome.FAILS
ONE, OTHER = "without sysctl a=0", "without sysctl b=0"
NOT_TRIED = [NotTried(change="with as-root", reason="something else let it pass before")]
TURNED = Experiment(
    tests=["box", "namespace"],
    steps=[step(FAILS), step(FAILS, ONE), step(FAILS, OTHER), step(PASSES, ONE, OTHER)],
    turning=[[ONE, OTHER]],
    not_tried=NOT_TRIED,
    evidence=["cells/a/experiment/01/suite.log", "cells/a/experiment/02/suite.log"],
)


@pytest.mark.parametrize(
    ("status", "made", "line"),
    [
        (
            Status.XFAIL,
            TURNED,
            f"what failed passes {ONE} and {OTHER}; tried alone: 2; not tried: 1; judged by box, namespace",
        ),
        (
            Status.FAIL,
            Experiment(
                tests=["box"],
                steps=[step(FAILS), step(FAILS, ONE), step(FAILS, OTHER), step(FAILS, ONE, OTHER)],
                stopped="the budget of 4 forks is used up",
            ),
            "nothing that was tried lets it pass; the budget of 4 forks is used up; tried alone: 2; "
            "judged by box",
        ),
        (
            Status.PASS,
            Experiment(
                tests=["namespace"],
                steps=[
                    step(PASSES),
                    step(FAILS, "with a"),
                    step(FAILS, "with b"),
                    step(PASSES, "with c"),
                    step(StepOutcome.CANNOT, "with d"),
                    step(StepOutcome.ERROR, "with e"),
                ],
                turning=[["with a"], ["with b"]],
                not_tried=NOT_TRIED,
            ),
            "it fails with a, with b; tried alone: 3; not tried: 2; faults of the lab: 1; judged by namespace",
        ),
        (
            Status.PASS,
            Experiment(tests=["namespace"], steps=[step(PASSES), step(PASSES, "with c")]),
            "nothing that was tried breaks it; tried alone: 1; judged by namespace",
        ),
        (
            Status.FAIL,
            Experiment(
                tests=["box"],
                steps=[step(FAILS), step(StepOutcome.ERROR, ONE), step(PASSES, ONE, OTHER)],
                turning=[[ONE, OTHER]],
            ),
            f"what failed passes {ONE} and {OTHER}; faults of the lab: 1; judged by box",
        ),
        (
            Status.FAIL,
            Experiment(tests=["box"], steps=[step(PASSES)], stopped="the cell did otherwise: passes"),
            "no change was tried; the cell did otherwise: passes; judged by box",
        ),
    ],
)
def test_what_an_experiment_found_is_said_in_a_line(status: Status, made: Experiment, line: str) -> None:
    assert table.experiment(cell(status=status, experiment=made)) == line


TRIED = [
    RemedyResult(name="preflight", result=RemedyOutcome.AVOIDS, reason="skipped: a | b", price="Nothing."),
    RemedyResult(
        name="install-bubblewrap",
        result=RemedyOutcome.CANNOT,
        reason="no source of packages",
        price="None.",
        scripts={"install-bubblewrap": "0" * 64},
    ),
    RemedyResult(
        name="clone-on+limit-raise",
        result=RemedyOutcome.VERIFIED,
        price="Every program may.",
        scripts={"clone-on": "1" * 64, "limit-raise": "2" * 64},
        defects=["its undo does not put back what was: bwrap_user"],
        evidence=["cells/a/remedies/x/boxlite/box-1/logs/boxlite.log", "cells/a/remedies/x/clone-on.sh"],
    ),
]


def blocked(guest: str, variant: str, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "status": Status.XFAIL,
        "expected": XFAIL,
        "cause": "userns-limit",
        "confidence": Confidence.PROVED,
        "causes": [
            Finding(name="userns-limit", confidence=Confidence.PROVED, why="it is 0"),
            Finding(name="<gone>", confidence=Confidence.LIKELY, why="of another release"),
        ],
        "reason": "the limit is 0",
        "remedies": TRIED,
        "evidence": [f"cells/{guest}/{variant}/0.10.8/kernel.log"],
        "rerun": f"lab matrix -g {guest} -v {variant}",
    }
    return cell(guest, variant, **(given | more))


def everything() -> RunResult:
    """Cells that passed, failed in every way, were tried again, and could not be run."""
    tests = [
        TestResult(name="jail_starts", outcome=Outcome.FAIL, message=f"no\nsandbox {'x' * 400}"),
        TestResult(name="jail_ends", outcome=Outcome.SKIP),
        TestResult(name="box_starts", outcome=Outcome.PASS),
    ]
    unknown = {
        "status": Status.FAIL,
        "cause": "unknown",
        "confidence": Confidence.LIKELY,
        "reason": "[red] is no markup",
    }
    return run_of(
        cell("debian-12", retried=[FAULT, "no SSH"]),
        blocked("debian-12", "max-userns-zero", facts=facts(kernel="6.1.0")),
        blocked("debian-13", "max-userns-zero", facts=facts()),
        blocked("debian-13", "limit-one", facts=facts()),
        cell("debian-13", **FLAKY),
        cell("debian-13", "podman", rerun="lab 1", tests=tests, evidence=["a.log"], **unknown),
        blocked("debian-13", "as-root", remedies=[TRIED[1]], experiment=TURNED),
        cell(
            "debian-14",
            status=Status.ERROR,
            reason="the machine of debian-14 is gone",
            rerun="lab 2",
            evidence=["cells/debian-14/stock/0.10.8/console.log"],
        ),
        cell("debian-12", "apparmor-off", status=Status.NOT_APPLICABLE, reason="no AppArmor"),
        cell("fedora-44", status=Status.NOT_RUN, reason="no image"),
        lanes=[LaneRecord(guest="debian-13", image="1" * 64, fork="disk", note="no memory", seconds={})],
    )


FORMS: dict[str, Callable[[RunResult], str]] = {"summary.txt": printed, "matrix.md": markdown.render}


@pytest.mark.parametrize("name", FORMS)
def test_a_report_of_everything_is_as_it_was(name: str) -> None:
    assert FORMS[name](everything()) == (GOLDEN / name).read_text()


def test_a_cell_on_which_nothing_was_tried_says_nothing_of_remedies() -> None:
    run = run_of(blocked("debian-13", "stock", remedies=[], evidence=[]))
    for text in (printed(run), markdown.render(run)):
        assert "remed" not in text
        assert "by experiment" not in text


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, render in FORMS.items():
        (GOLDEN / name).write_text(render(everything()))
