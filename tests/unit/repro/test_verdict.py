"""The verdict on what was run for a report, its claims, and the answer that says them."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from lab import causes
from lab.catalog import remedies
from lab.record import (
    CellResult,
    Confidence,
    FoundCause,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    Status,
    TestResult,
)
from lab.repro import answer, verdict
from lab.repro.answer import Subject
from lab.repro.planning import Plan
from lab.repro.report import Finding as TextFinding
from lab.repro.report import Mood, Setting, Speaker, Statement
from lab.repro.verdict import Claim, ClaimOutcome, Reproduction, Verdict, essence, spaced
from tests.builders import evidence, messages
from tests.builders.cells import changed
from tests.builders.reports import (
    CLONE,
    POLICY,
    RESTRICT,
    SWITCH,
    architecture,
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

HELD, NOT_HELD, NOT_TESTED = ClaimOutcome.HELD, ClaimOutcome.NOT_HELD, ClaimOutcome.NOT_TESTED
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
    return verdict.judge_run(made, run(cell), folder)


def held(judged: Verdict) -> list[Claim]:
    """What the report says about its first question and a line of the evidence says, too."""
    return [claim for claim in judged.answered[0].claims if claim.outcome is HELD]


def denied(**fields: str) -> tuple[list[Statement], TextFinding]:
    """An audit line in a report, and the cause that it makes suspected."""
    line = audit(5, **fields)
    return [line], suspected(POLICY, line.quote)


@pytest.mark.parametrize(
    ("statements", "suspicion", "cause", "result", "why"),
    [
        (
            [words(NAMESPACE)],
            POLICY,
            POLICY,
            Reproduction.REPRODUCED,
            f"the same words, the same cause: {POLICY}",
        ),
        ([words(NAMESPACE)], POLICY, CLONE, Reproduction.OTHER_CAUSE, f"the cause found is {CLONE} (proved)"),
        # Other words are other words, whatever the cause.
        ([OTHER_WORDS], POLICY, POLICY, Reproduction.NOT_REPRODUCED, "with other words than the report's"),
        ([OTHER_WORDS], POLICY, CLONE, Reproduction.NOT_REPRODUCED, "with other words"),
        ([words("Permission denied")], POLICY, POLICY, Reproduction.NOT_REPRODUCED, "with other words"),
        (
            [OLDER, OTHER_WORDS],
            POLICY,
            POLICY,
            Reproduction.NOT_REPRODUCED,
            "is 0.9.0 in the report and 0.12.0 here",
        ),
        ([words(NAMESPACE)], POLICY, None, Reproduction.NOT_REPRODUCED, "every test passes"),
        # What a command printed is not looked for before it ran.
        ([COMMAND, OTHER_WORDS], POLICY, POLICY, Reproduction.NOT_REPRODUCED, "no words of the report"),
        # An audit line of another program is the same refusal.
        (*denied(comm="element-desktop", pid="45964"), POLICY, Reproduction.REPRODUCED, "the same cause"),
        (*denied(operation="userns_create"), POLICY, Reproduction.NOT_REPRODUCED, "other words"),
        (*denied(capability="8", capname="setpcap"), POLICY, Reproduction.NOT_REPRODUCED, "other words"),
        # A report without a cause gets the one found.
        (
            [words(NAMESPACE)],
            None,
            POLICY,
            Reproduction.REPRODUCED,
            f"the same words; the cause found is {POLICY}",
        ),
        ([named_test(ECHO)], None, POLICY, Reproduction.REPRODUCED, "the tests that it names fail"),
        ([named_test("standard_mode_enables_jailer")], None, POLICY, Reproduction.NOT_REPRODUCED, "no words"),
        ([], None, POLICY, Reproduction.NOT_REPRODUCED, "quotes no words to compare"),
        ([OTHER_WORDS], None, POLICY, Reproduction.NOT_REPRODUCED, "it fails, but not with the report's words"),
    ],
)
def test_the_verdict_on_a_cell(
    tmp_path: Path,
    statements: Sequence[Statement],
    suspicion: str | TextFinding | None,
    cause: str | None,
    result: Reproduction,
    why: str,
) -> None:
    made = plan(report(system(), *statements), *([suspicion] if suspicion else []))
    judged = of(made, tmp_path, cause=cause)
    assert judged.result is result
    assert why in judged.reasons[0]


@pytest.mark.parametrize(
    ("confidence", "result"), [(PROVED, Reproduction.REPRODUCED), (LIKELY, Reproduction.NOT_REPRODUCED)]
)
def test_without_words_settings_must_prove_it(
    tmp_path: Path, confidence: Confidence, result: Reproduction
) -> None:
    made = plan(report(system(), holds(SWITCH, "0")), CLONE)
    assert of(made, tmp_path, cause=CLONE, confidence=confidence).result is result


def test_the_line_that_shows_the_same_words_is_named(tmp_path: Path) -> None:
    [claim] = held(of(plan(report(system(), words(NAMESPACE)), POLICY), tmp_path))
    assert claim.file and claim.file_line
    assert claim.file.endswith("logs/boxlite.log.2026-11-24")
    line = spaced((tmp_path / claim.file).read_text().splitlines()[claim.file_line - 1])
    assert "bwrap: No permissions to create a new namespace" in line
    assert claim.reason.startswith(f"{claim.file}, line {claim.file_line}: {line[:80]}")


@pytest.mark.parametrize("status", [Status.ERROR, Status.NOT_RUN, Status.NOT_APPLICABLE, Status.FLAKY])
def test_a_cell_that_says_nothing_is_not_run_with_its_reason(tmp_path: Path, status: Status) -> None:
    made = plan(report(system("ubuntu", "24.04")), POLICY)
    cell = ran(made, variant_of(made).name, status=status, reason="image not available: no network")
    judged = verdict.judge_run(made, run(cell), tmp_path)
    assert (judged.result, judged.result.exit_status) == (Reproduction.NOT_RUN, 3)
    assert judged.reasons == (f"{status}: image not available: no network", made.hint)
    assert made.hint.startswith("debian-13 comes nearest: ")


def test_an_audit_line_that_boxlite_wrote_is_not_the_kernel_s(tmp_path: Path) -> None:
    line = audit()
    made = plan(report(system(), line), suspected(POLICY, line.quote))
    cell = ran(made, "apparmor-userns-nocaps", cause=POLICY)
    gather(tmp_path, cell, kernel="")
    forged = tmp_path / cell.folder / "boxlite/box-a/logs/kernel.log"
    forged.write_text(evidence.DENIED_CAP_BWRAP)
    assert held(verdict.judge_run(made, run(cell), tmp_path)) == []
    (tmp_path / cell.folder / "kernel.log").write_text(evidence.DENIED_CAP_BWRAP)
    assert len(held(verdict.judge_run(made, run(cell), tmp_path))) == 1


def test_a_line_that_only_ubuntu_s_kernel_writes_is_not_missed_elsewhere(tmp_path: Path) -> None:
    moved = audit(5, apparmor="AUDIT", operation="userns_create")
    lines = report(system("ubuntu", "24.04"), moved, audit(6, comm="some-desktop"))
    suspicion = suspected(POLICY, moved.quote, quote(6, "audit: DENIED"), program="some-desktop")
    judged = of(plan(lines, suspicion, nearest=True), tmp_path)
    first, second = judged.answered[0].claims
    assert (first.outcome, first.reason) == (NOT_TESTED, "only Ubuntu's kernel writes such a line")
    assert second.outcome is HELD
    assert judged.result is Reproduction.REPRODUCED
    assert "it was met by some-desktop in the report, and by boxlite here" in judged.reasons[0]


def test_two_causes_are_told_apart_each_by_its_own_words(tmp_path: Path) -> None:
    line, message = audit(5), words(CANNOT_RUN, 4, Speaker.BOXLITE)
    made = plan(report(system(), message, line), suspected(POLICY, line.quote), suspected(CLONE, message.quote))
    first, second = (question.variant.name for question in made.questions if question.variant)
    cells = [ran(made, first, cause=POLICY), ran(made, second, cause=CLONE)]
    gather(tmp_path, cells[0])
    gather(tmp_path, cells[1], log=f"ERROR boxlite: {CANNOT_RUN}\n", kernel="")
    judged = verdict.judge_run(made, run(*cells), tmp_path)
    assert [answered.result for answered in judged.answered] == [
        Reproduction.REPRODUCED,
        Reproduction.REPRODUCED,
    ]
    assert [[claim.statement for claim in one.claims] for one in judged.answered] == [[line], [message]]
    assert judged.result.exit_status == 0


def test_the_worst_of_several_answers_is_the_verdict(tmp_path: Path) -> None:
    line = audit(5)
    made = plan(report(system(), line), suspected(POLICY, line.quote), suspected(CLONE, quote(9)))
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "userns-clone-off")]
    for cell in cells:
        gather(tmp_path, cell)
    judged = verdict.judge_run(made, run(*cells), tmp_path)
    assert [answered.result for answered in judged.answered] == [
        Reproduction.REPRODUCED,
        Reproduction.NOT_REPRODUCED,
    ]
    assert (judged.result, judged.result.exit_status) == (Reproduction.NOT_REPRODUCED, 1)


@pytest.mark.parametrize(
    ("cause", "why", "result"),
    [
        (LIMIT, "Failed to run mke2fs: Resource temporarily unavailable", Reproduction.REPRODUCED),
        (LIMIT, "failed to create new OS thread", Reproduction.NOT_REPRODUCED),
        # Chance decides nowhere else.
        (CLONE, "Failed to run mke2fs: Resource temporarily unavailable", Reproduction.NOT_REPRODUCED),
    ],
)
def test_any_error_at_a_limit_reproduces_it(tmp_path: Path, cause: str, why: str, result: Reproduction) -> None:
    message = replace(words("bwrap: Creating new namespace failed: Resource temporarily"), errno="EAGAIN")
    made = plan(report(system(), message), cause)
    findings = [FoundCause(name=cause, confidence=LIKELY, reason=why)]
    cell = ran(made, variant_of(made).name, cause=cause, confidence=LIKELY, causes=findings)
    gather(tmp_path, cell)
    judged = verdict.judge_run(made, run(cell), tmp_path)
    assert judged.result is result
    assert ("the same error, EAGAIN, met by another program" in judged.reasons[0]) is (
        result is Reproduction.REPRODUCED
    )


def test_why_words_were_not_looked_for(tmp_path: Path) -> None:
    [claim] = of(plan(report(system(), COMMAND, OTHER_WORDS), POLICY), tmp_path / "command").answered[0].claims
    assert claim.outcome is NOT_TESTED
    assert "lab exec GUEST VARIANT -- COMMAND" in claim.reason
    # The same bubblewrap explains no other words.
    same = program("bubblewrap", "0.12.0")
    judged = of(plan(report(system(), same, OTHER_WORDS), POLICY), tmp_path / "same")
    assert [claim.outcome for claim in judged.answered[0].claims] == [NOT_HELD]
    assert "bubblewrap" not in judged.reasons[0]


@pytest.mark.parametrize("cause", [None, POLICY], ids=["every test passes", "it fails"])
def test_what_no_test_is_about_is_not_reproduced_only_if_something_else_is(
    tmp_path: Path, cause: str | None
) -> None:
    about = {"start": quote(1), "pause": quote(1)}
    made = plan(replace(report(system(), OTHER_WORDS), subjects=about))
    judged = of(made, tmp_path, cause=cause)
    assert (judged.result, judged.result.exit_status) == (Reproduction.NOT_TESTED, 3)
    assert judged.reasons[0].startswith("no test is about pause; ")
    # The same words are the same words.
    told = plan(replace(report(system(), words(NAMESPACE)), subjects=about))
    assert of(told, tmp_path / "told").result is Reproduction.REPRODUCED
    # What the suite's tests are about is tested.
    start = plan(replace(report(system(), OTHER_WORDS), subjects={"start": quote(1)}))
    assert of(start, tmp_path / "start", cause=cause).result is Reproduction.NOT_REPRODUCED


@pytest.mark.parametrize(
    ("failed", "confidence", "result", "why"),
    [
        ("ends", PROVED, Reproduction.REPRODUCED, "tests about stop fail: ends; the cause found is"),
        ("ends", LIKELY, Reproduction.NOT_REPRODUCED, "quotes no words to compare"),
        ("names", PROVED, Reproduction.NOT_REPRODUCED, "no test about stop fails"),
    ],
)
def test_of_a_report_without_words_the_tests_of_its_subject_decide(
    tmp_path: Path, failed: str, confidence: Confidence, result: Reproduction, why: str
) -> None:
    made = plan(replace(report(system()), subjects={"stop": quote(1)}))
    tests = [
        TestResult(name=name, subject=subject, outcome=Outcome.FAIL if name == failed else Outcome.PASS)
        for name, subject in {"ends": "stop", "names": "network", "starts": "start"}.items()
    ]
    cell = changed(ran(made, "stock", cause=CLONE, confidence=confidence), tests=tests)
    judged = verdict.judge_run(made, run(cell), tmp_path)
    assert judged.result is result
    assert why in judged.reasons[0]


def test_a_plan_that_cannot_be_run_is_not_run_for_its_reasons() -> None:
    made = plan(report(system("pop", None)), POLICY)
    assert verdict.judge_plan(made) == Verdict(Reproduction.NOT_RUN, (*made.why_not, made.hint))


@pytest.mark.parametrize(
    ("text", "same_everywhere"),
    [
        ("bwrap: setting up uid map: Permission denied", "setting up uid map: Permission denied"),
        ('Config(\\"Sandbox preflight failed.\\")', "Sandbox preflight failed"),
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
    assert held(verdict.judge_run(made, run(cell), tmp_path / "run")) == []


# -- the claims of a report


@pytest.mark.parametrize(
    ("helped", "cured", "result"),
    [
        (True, True, HELD),
        (True, False, NOT_HELD),
        (False, False, HELD),
        (False, True, NOT_HELD),
    ],
)
def test_what_was_tried_is_judged_on_the_cell(
    tmp_path: Path, helped: bool, cured: bool, result: ClaimOutcome
) -> None:
    made = plan(report(system(), tried(SWITCH, "1", helped=helped)), CLONE)
    cells = [ran(made, "userns-clone-off", cause=CLONE), ran(made, "tried-1", cause=None if cured else CLONE)]
    [claim] = verdict.judge_run(made, run(*cells), tmp_path).claims
    assert claim.outcome is result
    assert claim.text == f"{SWITCH}=1 {'helps' if helped else 'does not help'} against {CLONE}"
    outcome = "every test that needs the sandbox passes" if cured else f"{ECHO}, "
    assert f"with it on userns-clone-off, {outcome}" in claim.reason
    assert claim.statement.quote.number == 3


def test_a_test_that_did_not_run_says_nothing_and_a_skipped_one_is_no_cure(tmp_path: Path) -> None:
    made = plan(report(system(), named_test(ECHO)), CLONE)
    tests = [TestResult(name=ECHO, outcome=Outcome.NOT_RUN)]
    blocked = ran(made, "userns-clone-off", cause=CLONE)
    not_run = changed(blocked, tests=tests)
    [claim] = verdict.judge_run(made, run(not_run), tmp_path).claims
    assert (claim.outcome, claim.reason) == (NOT_TESTED, "it did not run")
    made = plan(report(system(), tried(SWITCH, "1", helped=True)), CLONE)
    cure = ran(made, "tried-1")
    cure.tests[:] = [TestResult(name=test.name, outcome=Outcome.SKIP) for test in cure.tests]
    [claim] = verdict.judge_run(made, run(blocked, cure), tmp_path).claims
    assert claim.outcome is NOT_HELD


def test_what_could_not_be_tried_says_why_and_what_has_no_outcome_is_no_claim(tmp_path: Path) -> None:
    settings = tried(RESTRICT, "0", helped=False), tried(SWITCH, "1", helped=None)
    made = plan(report(system("ubuntu", "24.04"), *settings), POLICY, nearest=True)
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "tried-1", cause=POLICY)]
    switch, open_one = verdict.judge_run(made, run(*cells), tmp_path).claims
    assert (switch.outcome, switch.reason) == (
        NOT_TESTED,
        "the kernel of debian-13 has no such sysctl",
    )
    assert open_one.outcome is NOT_TESTED
    assert open_one.reason.startswith("the report does not say what it did; with it on apparmor-userns-nocaps")


def test_words_audit_lines_and_tests_of_a_new_report_are_its_claims(tmp_path: Path) -> None:
    statements = (
        words("bwrap: Creating new namespace failed: Permission denied", 4),
        words("Sandbox preflight failed: bwrap cannot create user namespaces.", 5, Speaker.BOXLITE),
        audit(6),
        named_test(ECHO),
        named_test("zygote_starts", known=False),
    )
    claims = of(plan(report(system(), *statements), POLICY), tmp_path).claims
    assert [(claim.outcome, claim.statement) for claim in claims] == list(
        zip(
            (
                NOT_HELD,
                HELD,
                HELD,
                HELD,
                NOT_TESTED,
            ),
            statements,
            strict=True,
        )
    )
    assert "boxlite.log.2026-11-24, line 2: " in claims[1].reason
    assert claims[4].reason == "the lab's suite has no such test"


def test_what_two_cells_are_asked_holds_if_one_shows_it(tmp_path: Path) -> None:
    message = words("Sandbox preflight failed: bwrap cannot create user namespaces.", 5, Speaker.BOXLITE)
    made = plan(report(system(), message), POLICY, CLONE)
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "userns-clone-off", cause=CLONE)]
    gather(tmp_path, cells[0], log="", kernel="")
    gather(tmp_path, cells[1])
    judged = verdict.judge_run(made, run(*cells), tmp_path)
    assert [answered.claims[0].outcome for answered in judged.answered] == [
        NOT_HELD,
        HELD,
    ]
    assert [claim.outcome for claim in judged.claims] == [HELD]


# -- the answer that says it

MESSAGE = words("Sandbox preflight failed: bwrap cannot create user namespaces.")
AGAIN = "lab repro REPORT"


def subject(folder: Path, made: Plan, *cells: CellResult) -> Subject:
    done = run(*cells)
    return Subject(made, verdict.judge_run(made, done, folder), done)


def blocked(folder: Path) -> Subject:
    """The answer to a report whose cause was reproduced and cured."""
    made = plan(report(system(), MESSAGE, tried(SWITCH, "1", helped=True)), CLONE)
    cell = ran(made, "userns-clone-off", cause=CLONE, cured_by=["userns-clone-on", "jailer-off"])
    gather(folder, cell, log=messages.USERNS_SYSCTL, kernel="")
    return subject(folder, made, cell, ran(made, "tried-1"))


def test_the_answer_has_run_cause_cure_script_and_command_and_nothing_of_the_machine(tmp_path: Path) -> None:
    answered = blocked(tmp_path)
    text = answer.render_answer(answered)
    assert text.startswith("## Verdict: reproduced on debian-13\n")
    assert "| debian-13 | userns-clone-off |" in text
    assert "xfail userns-sysctl" in text
    assert causes.list_causes()[CLONE].explanation in text
    script = remedies.find_remedy("userns-clone-on").script()
    assert script in text
    assert "with it the whole suite passed on userns-clone-off" in text
    assert "verified too" in text
    assert f"{AGAIN}\nlab matrix -g debian-13 -v userns-clone-off --build 0.10.8\n" in text
    assert f"| line 3: {SWITCH}=1 helps against {CLONE} | held |" in text
    assert text.count("Sandbox preflight failed: bwrap cannot create user namespaces. | held |") == 1
    assert "Debian GNU/Linux 13 (trixie), kernel 6.12.118+deb13-cloud-amd64" in text
    assert not any(part in text for part in (str(tmp_path), "qemu:///", "/var/lib/boxlite-lab"))
    assert "the guest ran under software emulation" in text
    assert answered.run and answered.run.run.host
    answered.run.run.host = answered.run.run.host.model_copy(update={"acceleration": "kvm"})
    assert "software emulation" not in answer.render_answer(answered)


def test_a_guest_of_another_architecture_is_named_as_that(tmp_path: Path) -> None:
    made = plan(report(system("debian", "11"), architecture("aarch64"), MESSAGE), CLONE)
    cell = ran(made, "userns-clone-off", cause=CLONE)
    gather(tmp_path, cell, log=messages.USERNS_SYSCTL, kernel="")
    expected = "reproduced on debian-11 (x86_64; the report's host has aarch64)"
    assert answer.headline(subject(tmp_path, made, cell)) == expected


def test_the_nearest_guest_is_named_as_what_it_is(tmp_path: Path) -> None:
    line = audit()
    made = plan(report(system("ubuntu", "24.04"), line), suspected(POLICY, line.quote), nearest=True)
    cell = ran(made, "apparmor-userns-nocaps", cause=POLICY)
    gather(tmp_path, cell)
    answered = subject(tmp_path, made, cell)
    assert answer.headline(answered) == "reproduced on debian-13, under Ubuntu's policy; not on Ubuntu 24.04"
    assert "guest: debian-13, which is not Ubuntu 24.04" in answer.render_answer(answered)


def test_what_is_not_run_says_why_what_is_missing_and_what_to_ask_for() -> None:
    made = plan(report(words("bwrap: no")), CLONE)
    text = answer.render_answer(Subject(made, verdict.judge_plan(made)))
    assert text.startswith("## Verdict: not run\n")
    assert "It does not say: the distribution and its release." in text
    assert "`cat /etc/os-release; uname -rm`" in text
    assert "lab probe" in text
    assert f"**Likely: {CLONE}**: the text says so" in text
    assert "### Do it again" not in text


def test_a_cell_that_no_remedy_cured_says_so_and_an_unknown_cause_is_not_explained(tmp_path: Path) -> None:
    made = plan(report(system(), MESSAGE))
    cell = ran(made, "stock", cause="unknown")
    gather(tmp_path, cell)
    text = answer.render_answer(subject(tmp_path, made, cell))
    assert "Under stock the evidence shows none of the causes that the lab knows." in text
    assert "No remedy was tried on stock." in text


def test_a_remedy_that_the_cell_cannot_tell_about_is_told_with_the_reason(tmp_path: Path) -> None:
    made = plan(report(system(), MESSAGE))
    remedy = {"name": "apparmor-restrict-off", "result": RemedyOutcome.NOT_JUDGED, "reason": "why", "price": ""}
    cell = ran(made, "stock", cause=POLICY, remedies=[RemedyResult.model_validate(remedy)])
    gather(tmp_path, cell)
    text = answer.render_answer(subject(tmp_path, made, cell))
    assert "No remedy was verified on stock: `apparmor-restrict-off` not judged here (why)." in text


def test_hostile_text_of_a_report_becomes_neither_markup_nor_a_control_sequence(tmp_path: Path) -> None:
    evil = "x\x1b[31m </details><script>alert(1)</script> | a | `code` ![x](http://evil.example/p.png) @all"
    hostile = Setting(quote(3, evil), evil, None, Mood.TRIED, helped=False)
    made = plan(report(system(), words(evil), hostile), CLONE)
    cell = ran(made, "userns-clone-off", cause=CLONE)
    gather(tmp_path, cell, log=f"2026-11-24T23:56:40Z ERROR boxlite::x: {evil}\n", kernel="")
    text = answer.render_answer(subject(tmp_path, made, cell))
    assert "\x1b" not in text
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script>" not in html
    assert "<img" not in html
    assert "</details>" not in html
    # GitHub would make a mention of it.
    assert "@all" not in re.sub("`[^`]*`", "", text)


def test_the_document_for_programs_has_the_verdict_the_words_and_the_claims(tmp_path: Path) -> None:
    document = json.loads(json.dumps(answer.make_answer_document(blocked(tmp_path))))
    keys = ("verdict", "guest", "is_host", "build")
    assert [document[key] for key in keys] == ["reproduced", "debian-13", True, "0.10.8"]
    [question] = document["questions"]
    assert (question["cause"], question["verdict"]) == (CLONE, "reproduced")
    quoted, cure = document["claims"]
    assert (quoted["line"], quoted["result"], quoted["file_line"]) == (4, "held", 2)
    assert (cure["line"], cure["result"], cure["file"]) == (3, "held", None)
    assert [cure["remedy"] for cure in document["cures"]] == ["userns-clone-on", "jailer-off"]
