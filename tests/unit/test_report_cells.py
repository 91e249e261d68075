"""What a report says of each cell: why it failed, what cures it, and how to run it again."""

from typing import Any

import pytest

from lab import causes
from lab.record import (
    Confidence,
    Experiment,
    ExperimentStep,
    Finding,
    LaneRecord,
    NotTried,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    Status,
    StepOutcome,
    TestResult,
)
from lab.report import markdown, table
from tests.builders.cells import cell
from tests.builders.output import FAULT, FLAKY, XFAIL, printed
from tests.builders.runs import run_of


def test_a_cell_that_was_tried_again_says_why_wherever_it_is_shown() -> None:
    run = run_of(cell(retried=[FAULT, "no SSH"]), cell("debian-12"))
    text = printed(run)
    name = "debian-13 stock 0.10.8"
    assert f"{name}: try 1: fault of the lab: {FAULT}\n" in text
    assert f"{name}: try 2: fault of the lab: no SSH\n" in text
    assert "debian-12 stock 0.10.8" not in text
    page = markdown.render(run)
    assert "## pass (try 3): debian-13 stock\n" in page
    assert f"\n- try 1: fault of the lab: {' '.join(FAULT.split()).replace('|', chr(92) + '|')}\n" in page
    assert "\n- try 2: fault of the lab: no SSH\n" in page
    assert page.count("\n## ") == 2  # this section and the environment


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
BLOCKED: dict[str, Any] = {
    "status": Status.XFAIL,
    "expected": XFAIL,
    "cause": "userns-limit",
    "reason": "the limit is 0",
    "remedies": TRIED,
    "evidence": ["cells/a/kernel.log", *TRIED[2].evidence],
}


def test_what_cures_a_cell_is_told_first_with_the_command_for_it() -> None:
    run = run_of(cell(**BLOCKED), cell("debian-12"))
    command = "lab remedies show clone-on --script and lab remedies show limit-raise --script"
    assert (
        "debian-13 stock 0.10.8: xfail userns-limit\n"
        "  the limit is 0\n"
        "  clone-on+limit-raise: verified\n"
        "    price: Every program may.\n"
        f"    {command}\n"
        "    a defect of clone-on+limit-raise: its undo does not put back what was: bwrap_user\n"
        "  preflight: avoids it: skipped: a | b\n"
        "    price: Nothing.\n"
        "    lab remedies show preflight\n"
        "  install-bubblewrap: cannot be tried here: no source of packages\n"
        "  evidence: a run/cells/debian-13/stock/0.10.8\n"
    ) in printed(run)
    shown, folded = markdown.render(run).split("<details>")
    assert (
        f"- cured by `clone-on+limit-raise` (verified): `{command}`; price: Every program may.\n"
        "    - a defect of the remedy: its undo does not put back what was: bwrap_user\n"
    ) in shown
    assert (
        "- remedy `preflight`: avoids it: skipped: a \\| b; `lab remedies show preflight`; price: Nothing.\n"
        "- remedy `install-bubblewrap`: cannot be tried here: no source of packages\n"
    ) in folded
    assert "[stock](cells/debian-13/stock/0.10.8)\n" in shown
    # The table itself stays the same.
    assert table.square(run.cells[0]) == "xfail userns-limit"


def step(outcome: StepOutcome, *changes: str) -> ExperimentStep:
    return ExperimentStep(changes=list(changes), outcome=outcome)


PASSES, FAILS = StepOutcome.PASSES, StepOutcome.FAILS
ONE, OTHER = "without sysctl a=0", "without sysctl b=0"
NOT_TRIED = [NotTried(change="with as-root", reason="something else let it pass before")]
EXPERIMENTS = [
    (
        Status.XFAIL,
        Experiment(
            tests=["box", "namespace"],
            steps=[step(FAILS), step(FAILS, ONE), step(FAILS, OTHER), step(PASSES, ONE, OTHER)],
            turning=[[ONE, OTHER]],
            not_tried=NOT_TRIED,
            evidence=["cells/a/experiment/01/suite.log", "cells/a/experiment/02/suite.log"],
        ),
        f"what failed passes {ONE} and {OTHER}; tried alone: 2; not tried: 1; judged by box, namespace",
    ),
    (
        Status.FAIL,
        Experiment(
            tests=["box"],
            steps=[step(FAILS), step(FAILS, ONE), step(FAILS, OTHER), step(FAILS, ONE, OTHER)],
            stopped="the budget of 4 forks is used up",
        ),
        "nothing that was tried lets it pass; the budget of 4 forks is used up; tried alone: 2; judged by box",
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
            steps=[
                step(FAILS),
                step(StepOutcome.ERROR, ONE),
                step(StepOutcome.ERROR, OTHER),
                step(PASSES, ONE, OTHER),
            ],
            turning=[[ONE, OTHER]],
        ),
        f"what failed passes {ONE} and {OTHER}; faults of the lab: 2; judged by box",
    ),
    (
        Status.FAIL,
        Experiment(tests=["box"], steps=[step(PASSES)], stopped="the cell did otherwise: passes"),
        "no change was tried; the cell did otherwise: passes; judged by box",
    ),
]


@pytest.mark.parametrize(("status", "made", "line"), EXPERIMENTS)
def test_what_an_experiment_found_is_said_in_a_line(status: Status, made: Experiment, line: str) -> None:
    run = run_of(cell(status=status, experiment=made, evidence=["cells/a/kernel.log", *made.evidence]))
    head = f"debian-13 stock 0.10.8: {status}\n"
    assert head in printed(run)
    assert f"  by experiment: {line}\n" in printed(run)
    page = markdown.render(run)
    assert f"## {status}: debian-13 stock\n" in page
    assert f"- by experiment: {line}\n" in page
    assert "[stock](cells/debian-13/stock/0.10.8)\n" in page


def test_a_cell_on_which_nothing_was_tried_says_nothing_of_remedies() -> None:
    run = run_of(cell(**{**BLOCKED, "remedies": [], "evidence": []}))
    for text in (printed(run), markdown.render(run)):
        assert "remed" not in text
        assert "by experiment" not in text


def test_a_flaky_cell_says_how_often_it_passed() -> None:
    run = run_of(cell(**FLAKY))
    assert "debian-13 stock 0.10.8: flaky 2/3\n  all tests passed in 2 of 3 repeats\n" in printed(run)
    assert "## flaky 2/3: debian-13 stock\n\nall tests passed in 2 of 3 repeats\n" in markdown.render(run)
    assert run.exit_status() == 1


def test_a_page_says_why_and_how_to_run_each_cell_again() -> None:
    run = run_of(
        cell(
            status=Status.ERROR,
            reason="the machine of debian-13 is gone",
            rerun="lab matrix -g debian-13 -v stock --build 0.10.8",
            evidence=["cells/debian-13/stock/0.10.8/console.log"],
        ),
        lanes=[LaneRecord(guest="debian-13", image="1" * 64, fork="disk", note="no memory", seconds={})],
    )
    text = markdown.render(run)
    assert "## error: debian-13 stock\n\nthe machine of debian-13 is gone\n" in text
    assert "```sh\nlab matrix -g debian-13 -v stock --build 0.10.8\n```\n" in text
    assert "- seen on debian-13 (kernel -): [stock](cells/debian-13/stock/0.10.8)\n" in text
    assert f"image sha256 {'1' * 64}, cells by disk; no memory" in text


def test_a_page_explains_every_cause_that_it_knows() -> None:
    found = [
        Finding(name="userns-limit", confidence=Confidence.PROVED, why="it is 0"),
        Finding(name="<gone>", confidence=Confidence.LIKELY, why="of another release"),
    ]
    page = markdown.render(run_of(cell(status=Status.FAIL, cause="userns-limit", reason="x", causes=found)))
    assert f"- `userns-limit`, proved: {causes.known()['userns-limit'].explanation}" in page
    assert "- `<gone>`, likely: \n" in page


def test_the_summary_says_why_and_how_to_run_each_unexpected_cell_again() -> None:
    run = run_of(
        cell(
            "debian-12",
            status=Status.FAIL,
            cause="unknown",
            reason="[red] is no markup",
            rerun="lab 1",
            confidence=Confidence.LIKELY,
        ),
        cell("debian-13", status=Status.ERROR, reason="no disk", rerun="lab 2"),
        cell("fedora-44", status=Status.XFAIL, cause="userns-limit", reason="as told", rerun="lab 3"),
    )
    text = printed(run)
    assert (
        "debian-12 stock 0.10.8: fail unknown\n  [red] is no markup (likely)\n  run it again: lab 1\n" in text
    )
    assert "debian-13 stock 0.10.8: error\n  no disk\n  run it again: lab 2\n" in text
    assert "lab 3" not in text
    assert "1 fail, 1 xfail, 1 error" in text


def test_a_failing_cell_says_which_tests_failed_with_what_words_and_where_the_evidence_is() -> None:
    tests = [
        TestResult(name="jail_starts", outcome=Outcome.FAIL, message=f"no\nsandbox {'x' * 400}"),
        TestResult(name="jail_ends", outcome=Outcome.SKIP),
        TestResult(name="box_starts", outcome=Outcome.PASS),
    ]
    text = printed(
        run_of(
            cell(
                status=Status.FAIL, cause="unknown", reason="x", rerun="lab 1", tests=tests, evidence=["a.log"]
            )
        )
    )
    assert (
        f"  jail_starts: fail: no sandbox {'x' * 289}... (111 more characters)\n"
        "  jail_ends: skip\n"
        "  run it again: lab 1\n"
        "  a shell in it: lab shell --run 'a run' debian-13/stock/0.10.8\n"
        "  evidence: a run/cells/debian-13/stock/0.10.8\n"
    ) in text
    assert "box_starts" not in text
