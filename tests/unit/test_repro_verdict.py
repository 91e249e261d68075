from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.record import Confidence, Finding, Outcome, Status, TestResult
from lab.repro import verdict
from lab.repro.planning import Plan
from lab.repro.report import Finding as TextFinding
from lab.repro.report import Speaker, Statement
from lab.repro.verdict import Claim, Held, Result, Verdict, essence, spaced
from tests.builders import evidence
from tests.builders.reports import (
    CLONE,
    POLICY,
    RESTRICT,
    SWITCH,
    audit,
    command,
    gather,
    holds,
    named_test,
    plan,
    program,
    quote,
    ran,
    report,
    run,
    suspected,
    system,
    tried,
    variant_of,
    words,
)

NAMESPACE = "bwrap: No permissions to create a new namespace, likely because the kernel does not allow \
non-privileged user namespaces. See another distribution's page."
LIMIT, ECHO = "nproc-limit", "jailer_enabled_box_starts_and_executes"
CANNOT_RUN = "failed to run bwrap: Permission denied (os error 13)"
OTHER_WORDS = words("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted")
OLDER, COMMAND = program("bubblewrap", "0.9.0"), command("bwrap --unshare-net true", 3)
PROVED, LIKELY = Confidence.PROVED, Confidence.LIKELY


def of(made: Plan, folder: Path, *, cause: str | None = POLICY, confidence: Confidence = PROVED) -> Verdict:
    """The verdict on a plan whose only cell failed for a cause, with the log of Ubuntu's policy."""
    cell = ran(made, variant_of(made).name, cause=cause, confidence=confidence)
    gather(folder, cell)
    return verdict.of_run(made, run(cell), folder)


def held(judged: Verdict) -> list[Claim]:
    """What the report says about its first question and a line of the evidence says, too."""
    return [claim for claim in judged.answered[0].claims if claim.held is Held.HELD]


def denied(**fields: str) -> tuple[list[Statement], TextFinding]:
    """An audit line in a report, and the cause that it makes suspected."""
    line = audit(5, **fields)
    return [line], suspected(POLICY, line.quote)


@pytest.mark.parametrize(
    ("statements", "suspicion", "cause", "result", "why"),
    [
        ([words(NAMESPACE)], POLICY, POLICY, Result.REPRODUCED, f"the same words, the same cause: {POLICY}"),
        ([words(NAMESPACE)], POLICY, CLONE, Result.OTHER_CAUSE, f"the cause found is {CLONE} (proved)"),
        # Other words are other words, whatever the cause.
        ([OTHER_WORDS], POLICY, POLICY, Result.NOT_REPRODUCED, "with other words than the report's"),
        ([OTHER_WORDS], POLICY, CLONE, Result.NOT_REPRODUCED, "with other words"),
        ([words("Permission denied")], POLICY, POLICY, Result.NOT_REPRODUCED, "with other words"),
        ([OLDER, OTHER_WORDS], POLICY, POLICY, Result.NOT_REPRODUCED, "is 0.9.0 in the report and 0.12.0 here"),
        ([words(NAMESPACE)], POLICY, None, Result.NOT_REPRODUCED, "every test passes"),
        # What a command printed is not looked for before it ran.
        ([COMMAND, OTHER_WORDS], POLICY, POLICY, Result.NOT_REPRODUCED, "no words of the report"),
        # An audit line of another program is the same refusal.
        (*denied(comm="element-desktop", pid="45964"), POLICY, Result.REPRODUCED, "the same cause"),
        (*denied(operation="userns_create"), POLICY, Result.NOT_REPRODUCED, "other words"),
        (*denied(capability="8", capname="setpcap"), POLICY, Result.NOT_REPRODUCED, "other words"),
        # A report without a cause gets the one found.
        ([words(NAMESPACE)], None, POLICY, Result.REPRODUCED, f"the same words; the cause found is {POLICY}"),
        ([named_test(ECHO)], None, POLICY, Result.REPRODUCED, "the tests that it names fail"),
        ([named_test("standard_mode_enables_jailer")], None, POLICY, Result.NOT_REPRODUCED, "no words"),
        ([], None, POLICY, Result.NOT_REPRODUCED, "quotes no words to compare"),
        ([OTHER_WORDS], None, POLICY, Result.NOT_REPRODUCED, "it fails, but not with the report's words"),
    ],
)
def test_the_verdict_on_a_cell(
    tmp_path: Path,
    statements: Sequence[Statement],
    suspicion: str | TextFinding | None,
    cause: str | None,
    result: Result,
    why: str,
) -> None:
    made = plan(report(system(), *statements), *([suspicion] if suspicion else []))
    judged = of(made, tmp_path, cause=cause)
    assert judged.result is result
    assert why in judged.why[0]


@pytest.mark.parametrize(
    ("confidence", "result"), [(PROVED, Result.REPRODUCED), (LIKELY, Result.NOT_REPRODUCED)]
)
def test_without_words_settings_must_prove_it(tmp_path: Path, confidence: Confidence, result: Result) -> None:
    made = plan(report(system(), holds(SWITCH, "0")), CLONE)
    assert of(made, tmp_path, cause=CLONE, confidence=confidence).result is result


def test_the_line_that_shows_the_same_words_is_named(tmp_path: Path) -> None:
    [claim] = held(of(plan(report(system(), words(NAMESPACE)), POLICY), tmp_path))
    assert claim.file and claim.file_line
    assert claim.file.endswith("logs/boxlite.log.2026-11-24")
    line = spaced((tmp_path / claim.file).read_text().splitlines()[claim.file_line - 1])
    assert "bwrap: No permissions to create a new namespace" in line
    assert claim.why.startswith(f"{claim.file}, line {claim.file_line}: {line[:80]}")


@pytest.mark.parametrize("status", [Status.ERROR, Status.NOT_RUN, Status.NOT_APPLICABLE, Status.FLAKY])
def test_a_cell_that_says_nothing_is_not_run_with_its_reason(tmp_path: Path, status: Status) -> None:
    made = plan(report(system("ubuntu", "24.04")), POLICY)
    cell = ran(made, variant_of(made).name, status=status, reason="image not available: no network")
    judged = verdict.of_run(made, run(cell), tmp_path)
    assert (judged.result, judged.result.exit_status) == (Result.NOT_RUN, 3)
    assert judged.why == (f"{status}: image not available: no network", made.hint)
    assert made.hint.startswith("debian-13 comes nearest: ")


def test_an_audit_line_that_boxlite_wrote_is_not_the_kernel_s(tmp_path: Path) -> None:
    line = audit()
    made = plan(report(system(), line), suspected(POLICY, line.quote))
    cell = ran(made, "apparmor-userns-nocaps", cause=POLICY)
    gather(tmp_path, cell, kernel="")
    forged = tmp_path / cell.folder / "boxlite/box-a/logs/kernel.log"
    forged.write_text(evidence.DENIED_CAP_BWRAP)
    assert held(verdict.of_run(made, run(cell), tmp_path)) == []
    (tmp_path / cell.folder / "kernel.log").write_text(evidence.DENIED_CAP_BWRAP)
    assert len(held(verdict.of_run(made, run(cell), tmp_path))) == 1


def test_a_line_that_only_ubuntu_s_kernel_writes_is_not_missed_elsewhere(tmp_path: Path) -> None:
    moved = audit(5, apparmor="AUDIT", operation="userns_create")
    lines = report(system("ubuntu", "24.04"), moved, audit(6, comm="some-desktop"))
    suspicion = suspected(POLICY, moved.quote, quote(6, "audit: DENIED"), program="some-desktop")
    judged = of(plan(lines, suspicion, nearest=True), tmp_path)
    first, second = judged.answered[0].claims
    assert (first.held, first.why) == (Held.NOT_TESTED, "only Ubuntu's kernel writes such a line")
    assert second.held is Held.HELD
    assert judged.result is Result.REPRODUCED
    assert "it was met by some-desktop in the report, and by boxlite here" in judged.why[0]


def test_two_causes_are_told_apart_each_by_its_own_words(tmp_path: Path) -> None:
    line, message = audit(5), words(CANNOT_RUN, 4, Speaker.BOXLITE)
    made = plan(report(system(), message, line), suspected(POLICY, line.quote), suspected(CLONE, message.quote))
    first, second = (question.variant.name for question in made.questions if question.variant)
    cells = [ran(made, first, cause=POLICY), ran(made, second, cause=CLONE)]
    gather(tmp_path, cells[0])
    gather(tmp_path, cells[1], log=f"ERROR boxlite: {CANNOT_RUN}\n", kernel="")
    judged = verdict.of_run(made, run(*cells), tmp_path)
    assert [answered.result for answered in judged.answered] == [Result.REPRODUCED, Result.REPRODUCED]
    assert [[claim.statement for claim in one.claims] for one in judged.answered] == [[line], [message]]
    assert judged.result.exit_status == 0


def test_the_worst_of_several_answers_is_the_verdict(tmp_path: Path) -> None:
    line = audit(5)
    made = plan(report(system(), line), suspected(POLICY, line.quote), suspected(CLONE, quote(9)))
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "userns-clone-off")]
    for cell in cells:
        gather(tmp_path, cell)
    judged = verdict.of_run(made, run(*cells), tmp_path)
    assert [answered.result for answered in judged.answered] == [Result.REPRODUCED, Result.NOT_REPRODUCED]
    assert (judged.result, judged.result.exit_status) == (Result.NOT_REPRODUCED, 1)


@pytest.mark.parametrize(
    ("cause", "why", "result"),
    [
        (LIMIT, "Failed to run mke2fs: Resource temporarily unavailable", Result.REPRODUCED),
        (LIMIT, "failed to create new OS thread", Result.NOT_REPRODUCED),
        # Chance decides nowhere else.
        (CLONE, "Failed to run mke2fs: Resource temporarily unavailable", Result.NOT_REPRODUCED),
    ],
)
def test_any_error_at_a_limit_reproduces_it(tmp_path: Path, cause: str, why: str, result: Result) -> None:
    message = replace(words("bwrap: Creating new namespace failed: Resource temporarily"), errno="EAGAIN")
    made = plan(report(system(), message), cause)
    findings = [Finding(name=cause, confidence=LIKELY, why=why)]
    cell = ran(made, variant_of(made).name, cause=cause, confidence=LIKELY, causes=findings)
    gather(tmp_path, cell)
    judged = verdict.of_run(made, run(cell), tmp_path)
    assert judged.result is result
    assert ("the same error, EAGAIN, met by another program" in judged.why[0]) is (result is Result.REPRODUCED)


def test_why_words_were_not_looked_for(tmp_path: Path) -> None:
    [claim] = of(plan(report(system(), COMMAND, OTHER_WORDS), POLICY), tmp_path / "command").answered[0].claims
    assert claim.held is Held.NOT_TESTED
    assert "lab exec GUEST VARIANT -- COMMAND" in claim.why
    # The same bubblewrap explains no other words.
    same = program("bubblewrap", "0.12.0")
    judged = of(plan(report(system(), same, OTHER_WORDS), POLICY), tmp_path / "same")
    assert [claim.held for claim in judged.answered[0].claims] == [Held.NOT_HELD]
    assert "bubblewrap" not in judged.why[0]


def test_a_plan_that_cannot_be_run_is_not_run_for_its_reasons() -> None:
    made = plan(report(system("pop", None)), POLICY)
    assert verdict.of_plan(made) == Verdict(Result.NOT_RUN, (*made.why_not, made.hint))


@pytest.mark.parametrize(
    ("text", "same_everywhere"),
    [
        ("bwrap: setting up uid map: Permission denied", "setting up uid map: Permission denied"),
        ('Config(\\"Sandbox preflight failed.\\")', 'Config("Sandbox preflight failed.")'),
        ("Error: bwrap:  too   many\nspaces here, really", "too many spaces here, really"),
        (NAMESPACE, NAMESPACE.removeprefix("bwrap: ").partition(". ")[0]),
    ],
)
def test_the_part_of_a_message_that_is_the_same_everywhere(text: str, same_everywhere: str) -> None:
    assert essence(text) == same_everywhere


def test_evidence_outside_of_the_run_is_not_read(tmp_path: Path) -> None:
    made = plan(report(system(), words(NAMESPACE)), POLICY)
    cell = ran(made, "apparmor-userns-nocaps", cause=POLICY)
    gather(tmp_path / "run", cell)
    logs = tmp_path / "run" / cell.folder / "boxlite/box-a/logs"
    (tmp_path / "elsewhere").write_text((logs / "boxlite.log.2026-11-24").read_text())
    (logs / "boxlite.log.2026-11-24").unlink()
    (tmp_path / "run" / cell.folder / "probes.json").unlink()
    (logs / "boxlite.log.2026-11-24").symlink_to(tmp_path / "elsewhere")
    assert held(verdict.of_run(made, run(cell), tmp_path / "run")) == []


# -- the claims of a report


@pytest.mark.parametrize(
    ("helped", "cured", "result"),
    [
        (True, True, Held.HELD),
        (True, False, Held.NOT_HELD),
        (False, False, Held.HELD),
        (False, True, Held.NOT_HELD),
    ],
)
def test_what_was_tried_is_judged_on_the_cell(tmp_path: Path, helped: bool, cured: bool, result: Held) -> None:
    made = plan(report(system(), tried(SWITCH, "1", helped=helped)), CLONE)
    cells = [ran(made, "userns-clone-off", cause=CLONE), ran(made, "tried-1", cause=None if cured else CLONE)]
    [claim] = verdict.of_run(made, run(*cells), tmp_path).claims
    assert claim.held is result
    assert claim.text == f"{SWITCH}=1 {'helps' if helped else 'does not help'} against {CLONE}"
    outcome = "every test that needs the sandbox passes" if cured else f"{ECHO}, "
    assert f"with it on userns-clone-off, {outcome}" in claim.why
    assert claim.statement.quote.number == 3


def test_a_test_that_did_not_run_says_nothing_and_a_skipped_one_is_no_cure(tmp_path: Path) -> None:
    made = plan(report(system(), named_test(ECHO)), CLONE)
    tests = [TestResult(name=ECHO, outcome=Outcome.NOT_RUN)]
    blocked = ran(made, "userns-clone-off", cause=CLONE)
    not_run = blocked.model_copy(update={"tests": tests})
    [claim] = verdict.of_run(made, run(not_run), tmp_path).claims
    assert (claim.held, claim.why) == (Held.NOT_TESTED, "it did not run")
    made = plan(report(system(), tried(SWITCH, "1", helped=True)), CLONE)
    cure = ran(made, "tried-1")
    cure.tests[:] = [TestResult(name=test.name, outcome=Outcome.SKIP) for test in cure.tests]
    [claim] = verdict.of_run(made, run(blocked, cure), tmp_path).claims
    assert claim.held is Held.NOT_HELD


def test_what_could_not_be_tried_says_why_and_what_has_no_outcome_is_no_claim(tmp_path: Path) -> None:
    settings = tried(RESTRICT, "0", helped=False), tried(SWITCH, "1", helped=None)
    made = plan(report(system("ubuntu", "24.04"), *settings), POLICY, nearest=True)
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "tried-1", cause=POLICY)]
    switch, open_one = verdict.of_run(made, run(*cells), tmp_path).claims
    assert (switch.held, switch.why) == (Held.NOT_TESTED, "the kernel of debian-13 has no such sysctl")
    assert open_one.held is Held.NOT_TESTED
    assert open_one.why.startswith("the report does not say what it did; with it on apparmor-userns-nocaps")


def test_words_audit_lines_and_tests_of_a_new_report_are_its_claims(tmp_path: Path) -> None:
    statements = (
        words("bwrap: Creating new namespace failed: Permission denied", 4),
        words("Sandbox preflight failed: bwrap cannot create user namespaces.", 5, Speaker.BOXLITE),
        audit(6),
        named_test(ECHO),
        named_test("zygote_starts", known=False),
    )
    claims = of(plan(report(system(), *statements), POLICY), tmp_path).claims
    assert [(claim.held, claim.statement) for claim in claims] == list(
        zip((Held.NOT_HELD, Held.HELD, Held.HELD, Held.HELD, Held.NOT_TESTED), statements, strict=True)
    )
    assert "boxlite.log.2026-11-24, line 2: " in claims[1].why
    assert claims[4].why == "the lab's suite has no such test"


def test_what_two_cells_are_asked_holds_if_one_shows_it(tmp_path: Path) -> None:
    message = words("Sandbox preflight failed: bwrap cannot create user namespaces.", 5, Speaker.BOXLITE)
    made = plan(report(system(), message), POLICY, CLONE)
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "userns-clone-off", cause=CLONE)]
    gather(tmp_path, cells[0], log="", kernel="")
    gather(tmp_path, cells[1])
    judged = verdict.of_run(made, run(*cells), tmp_path)
    assert [answered.claims[0].held for answered in judged.answered] == [Held.NOT_HELD, Held.HELD]
    assert [claim.held for claim in judged.claims] == [Held.HELD]
