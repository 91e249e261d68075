from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.record import Confidence, Finding, Status
from lab.repro import verdict
from lab.repro.planning import Plan
from lab.repro.report import Finding as TextFinding
from lab.repro.report import Speaker, Statement
from lab.repro.verdict import Proof, Result, Verdict, essence, spaced
from tests.builders import evidence
from tests.builders.reports import (
    CLONE,
    POLICY,
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
    variant_of,
    words,
)

NAMESPACE = "bwrap: No permissions to create a new namespace, likely because the kernel does not allow \
non-privileged user namespaces. See another distribution's page."
LIMIT = "nproc-limit"
CANNOT_RUN = "failed to run bwrap: Permission denied (os error 13)"
OTHER_WORDS = words("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted")
PROVED, LIKELY = Confidence.PROVED, Confidence.LIKELY


def of(made: Plan, folder: Path, *, cause: str | None = POLICY, confidence: Confidence = PROVED) -> Verdict:
    """The verdict on a plan whose only cell failed for a cause, with the log of Ubuntu's policy."""
    cell = ran(made, variant_of(made).name, cause=cause, confidence=confidence)
    gather(folder, cell)
    return verdict.of_run(made, run(cell), folder)


def proofs(judged: Verdict) -> list[Proof]:
    """The lines of the evidence that say what the report says about its first question."""
    return [pair.proof for pair in judged.answered[0].compared if pair.proof]


def denied(**fields: str) -> tuple[list[Statement], TextFinding]:
    """An audit line in a report, and the cause that it makes suspected."""
    line = audit(5, **fields)
    return [line], suspected(POLICY, line.quote)


@pytest.mark.parametrize(
    ("said", "suspicion", "cause", "result", "why"),
    [
        (
            [words(NAMESPACE)],
            POLICY,
            POLICY,
            Result.REPRODUCED,
            f"the same words, the same cause: {POLICY} (proved)",
        ),
        (
            [words(NAMESPACE)],
            POLICY,
            CLONE,
            Result.OTHER_CAUSE,
            f"the same words, but the cause found is {CLONE} (proved), and not {POLICY}",
        ),
        # Other words are other words, whatever the cause.
        ([OTHER_WORDS], POLICY, POLICY, Result.NOT_REPRODUCED, "with other words than the report's"),
        ([OTHER_WORDS], POLICY, CLONE, Result.NOT_REPRODUCED, "with other words"),
        ([words("Permission denied")], POLICY, POLICY, Result.NOT_REPRODUCED, "with other words"),
        (
            [program("bubblewrap", "0.9.0"), OTHER_WORDS],
            POLICY,
            POLICY,
            Result.NOT_REPRODUCED,
            "with other words than the report's; bubblewrap is 0.9.0 in the report and 0.12.0 here, and "
            "releases word one failure differently",
        ),
        ([words(NAMESPACE)], POLICY, None, Result.NOT_REPRODUCED, "every test passes"),
        # What a command printed is not looked for before it ran.
        (
            [command("bwrap --unshare-net true", 3), OTHER_WORDS],
            POLICY,
            POLICY,
            Result.NOT_REPRODUCED,
            "that cause was put on the guest, and no words of the report could be compared",
        ),
        # An audit line of another program is the same refusal.
        (*denied(comm="element-desktop", pid="45964"), POLICY, Result.REPRODUCED, "the same cause"),
        (*denied(operation="userns_create"), POLICY, Result.NOT_REPRODUCED, "other words"),
        (*denied(capability="8", capname="setpcap"), POLICY, Result.NOT_REPRODUCED, "other words"),
        # A report without a cause gets the one found.
        (
            [words(NAMESPACE)],
            None,
            POLICY,
            Result.REPRODUCED,
            f"the same words; the cause found is {POLICY} (proved)",
        ),
        (
            [named_test("jailer_enabled_box_starts_and_executes")],
            None,
            POLICY,
            Result.REPRODUCED,
            "the tests that it names fail",
        ),
        (
            [named_test("standard_mode_enables_jailer")],
            None,
            POLICY,
            Result.NOT_REPRODUCED,
            "quotes no words to compare",
        ),
        ([], None, POLICY, Result.NOT_REPRODUCED, "quotes no words to compare"),
        ([OTHER_WORDS], None, POLICY, Result.NOT_REPRODUCED, "it fails, but not with the report's words"),
    ],
)
def test_the_verdict_on_a_cell(
    tmp_path: Path,
    said: Sequence[Statement],
    suspicion: str | TextFinding | None,
    cause: str | None,
    result: Result,
    why: str,
) -> None:
    made = plan(report(system(), *said), *([suspicion] if suspicion else []))
    judged = of(made, tmp_path, cause=cause)
    assert judged.result is result
    assert why in judged.why[0]


def test_the_same_bubblewrap_explains_no_other_words(tmp_path: Path) -> None:
    made = plan(report(system(), program("bubblewrap", "0.12.0"), OTHER_WORDS), POLICY)
    judged = of(made, tmp_path)
    assert judged.result is Result.NOT_REPRODUCED
    assert "bubblewrap" not in judged.why[0]


@pytest.mark.parametrize(
    ("confidence", "result"), [(PROVED, Result.REPRODUCED), (LIKELY, Result.NOT_REPRODUCED)]
)
def test_without_words_settings_must_prove_it(tmp_path: Path, confidence: Confidence, result: Result) -> None:
    made = plan(report(system(), holds(SWITCH, "0")), CLONE)
    assert of(made, tmp_path, cause=CLONE, confidence=confidence).result is result


def test_the_line_that_shows_the_same_words_is_named(tmp_path: Path) -> None:
    [proof] = proofs(of(plan(report(system(), words(NAMESPACE)), POLICY), tmp_path))
    assert proof.file.endswith("logs/boxlite.log.2026-11-24")
    line = (tmp_path / proof.file).read_text().splitlines()[proof.line - 1]
    assert spaced(line) == proof.text
    assert "bwrap: No permissions to create a new namespace" in proof.text


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
    assert proofs(verdict.of_run(made, run(cell), tmp_path)) == []
    (tmp_path / cell.folder / "kernel.log").write_text(evidence.DENIED_CAP_BWRAP)
    assert len(proofs(verdict.of_run(made, run(cell), tmp_path))) == 1


def test_a_line_that_only_ubuntu_s_kernel_writes_is_not_missed_elsewhere(tmp_path: Path) -> None:
    moved = audit(5, apparmor="AUDIT", operation="userns_create")
    said = report(system("ubuntu", "24.04"), moved, audit(6, comm="some-desktop"))
    suspicion = suspected(POLICY, moved.quote, quote(6, "audit: DENIED"), program="some-desktop")
    judged = of(plan(said, suspicion, nearest=True), tmp_path)
    first, second = judged.answered[0].compared
    assert (first.proof, first.untested) == (None, "only Ubuntu's kernel writes such a line")
    assert second.proof
    assert judged.result is Result.REPRODUCED
    assert "it was met by some-desktop in the report, and by boxlite here" in judged.why[0]


def test_two_causes_are_told_apart_each_by_its_own_words(tmp_path: Path) -> None:
    line, said = audit(5), words(CANNOT_RUN, 4, Speaker.BOXLITE)
    made = plan(report(system(), said, line), suspected(POLICY, line.quote), suspected(CLONE, said.quote))
    first, second = (question.variant.name for question in made.questions if question.variant)
    cells = [ran(made, first, cause=POLICY), ran(made, second, cause=CLONE)]
    gather(tmp_path, cells[0])
    gather(tmp_path, cells[1], log=f"ERROR boxlite: {CANNOT_RUN}\n", kernel="")
    judged = verdict.of_run(made, run(*cells), tmp_path)
    assert [answered.result for answered in judged.answered] == [Result.REPRODUCED, Result.REPRODUCED]
    compared = [[pair.statement for pair in answered.compared] for answered in judged.answered]
    assert compared == [[line], [said]]
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
    ("why", "result"),
    [
        (
            "no process could be started: Failed to run mke2fs: Resource temporarily unavailable",
            Result.REPRODUCED,
        ),
        ("no process could be started: failed to create new OS thread", Result.NOT_REPRODUCED),
    ],
)
def test_any_program_s_error_at_a_limit_reproduces_it(tmp_path: Path, why: str, result: Result) -> None:
    said = replace(
        words("bwrap: Creating new namespace failed: Resource temporarily unavailable"), errno="EAGAIN"
    )
    made = plan(report(system(), said), LIMIT)
    shown = [Finding(name=LIMIT, confidence=LIKELY, why=why)]
    cell = ran(made, variant_of(made).name, cause=LIMIT, confidence=LIKELY, causes=shown)
    gather(tmp_path, cell)
    judged = verdict.of_run(made, run(cell), tmp_path)
    assert judged.result is result
    if result is Result.REPRODUCED:
        assert "the same error, EAGAIN, met by another program than the report's" in judged.why[0]


@pytest.mark.parametrize(
    ("said", "untested"),
    [
        ([command("bwrap --unshare-net true", 3), OTHER_WORDS], True),
        ([program("bubblewrap", "0.9.0"), OTHER_WORDS], False),
    ],
)
def test_why_words_were_not_looked_for(tmp_path: Path, said: Sequence[Statement], untested: bool) -> None:
    [compared] = of(plan(report(system(), *said), POLICY), tmp_path).answered[0].compared
    assert compared.proof is None
    assert ("lab exec GUEST VARIANT -- COMMAND" in compared.untested) is untested


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
    assert proofs(verdict.of_run(made, run(cell), tmp_path / "run")) == []
