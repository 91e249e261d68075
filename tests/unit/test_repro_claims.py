from pathlib import Path

import pytest

from lab.record import CellResult, Outcome, TestResult
from lab.repro import verdict
from lab.repro.planning import Plan
from lab.repro.report import Speaker
from lab.repro.verdict import ClaimLine, Held
from tests.builders.reports import (
    CLONE,
    POLICY,
    RESTRICT,
    SWITCH,
    audit,
    gather,
    named_test,
    plan,
    ran,
    report,
    system,
    tried,
    words,
)
from tests.builders.reports import run as run_of_cells

ECHO = "jailer_enabled_box_starts_and_executes"


def lines(made: Plan, folder: Path, *cells: CellResult) -> list[ClaimLine]:
    return list(verdict.of_run(made, run_of_cells(*cells), folder).claims)


@pytest.mark.parametrize(
    ("helped", "cured", "held"),
    [
        (True, True, Held.HELD),
        (True, False, Held.NOT_HELD),
        (False, False, Held.HELD),
        (False, True, Held.NOT_HELD),
    ],
)
def test_what_was_tried_is_judged_on_the_cell(tmp_path: Path, helped: bool, cured: bool, held: Held) -> None:
    made = plan(report(system(), tried(SWITCH, "1", helped=helped)), CLONE)
    cells = [ran(made, "userns-clone-off", cause=CLONE), ran(made, "tried-1", cause=None if cured else CLONE)]
    [line] = lines(made, tmp_path, *cells)
    assert line.held is held
    assert line.claim == f"{SWITCH}=1 {'helps' if helped else 'does not help'} against {CLONE}"
    wanted = "every test that needs the sandbox passes" if cured else f"{ECHO}, "
    assert f"with it on userns-clone-off, {wanted}" in line.why
    assert line.line == 3


def test_a_skipped_test_is_no_cure(tmp_path: Path) -> None:
    made = plan(report(system(), tried(SWITCH, "1", helped=True)), CLONE)
    cure = ran(made, "tried-1")
    tests = [
        TestResult(name=each.name, outcome=Outcome.SKIP) if each.name == ECHO else each for each in cure.tests
    ]
    cells = [ran(made, "userns-clone-off", cause=CLONE), cure.model_copy(update={"tests": tests})]
    [line] = lines(made, tmp_path, *cells)
    assert line.held is Held.NOT_HELD


def test_what_could_not_be_tried_says_why_and_what_has_no_outcome_is_no_claim(tmp_path: Path) -> None:
    said = report(
        system("ubuntu", "24.04"), tried(RESTRICT, "0", helped=False), tried(SWITCH, "1", helped=None)
    )
    made = plan(said, POLICY, nearest=True)
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "tried-1", cause=POLICY)]
    switch, unsaid = lines(made, tmp_path, *cells)
    assert (switch.held, switch.why) == (Held.NOT_TESTED, "the kernel of debian-13 has no such sysctl")
    assert unsaid.held is Held.NOT_TESTED
    assert unsaid.why.startswith("the report does not say what it did; with it on apparmor-userns-nocaps")


def test_words_audit_lines_and_tests_of_a_new_report_are_its_claims(tmp_path: Path) -> None:
    said = report(
        system(),
        words("bwrap: Creating new namespace failed: Permission denied", 4),
        words("Sandbox preflight failed: bwrap cannot create user namespaces.", 5, Speaker.BOXLITE),
        audit(6),
        named_test(ECHO),
        named_test("zygote_starts", known=False),
    )
    made = plan(said, POLICY)
    cell = ran(made, "apparmor-userns-nocaps", cause=POLICY)
    gather(tmp_path, cell)
    found = lines(made, tmp_path, cell)
    assert [(each.held, each.line) for each in found] == [
        (Held.NOT_HELD, 4),
        (Held.HELD, 5),
        (Held.HELD, 6),
        (Held.HELD, 7),
        (Held.NOT_TESTED, 7),
    ]
    assert "boxlite.log.2026-11-24, line 2: " in found[1].why
    assert found[4].why == "the lab's suite has no such test"
