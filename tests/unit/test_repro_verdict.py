from dataclasses import replace
from pathlib import Path

import pytest

from lab.record import Confidence, Finding, Status
from lab.repro import verdict
from lab.repro.planning import Plan
from lab.repro.report import Speaker
from lab.repro.verdict import Proof, Result, Verdict, essence, spaced
from tests.builders import evidence, messages
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


def of(made: Plan, folder: Path, *, log: str = messages.APPARMOR_NOCAPS, cause: str | None = POLICY) -> Verdict:
    """The verdict on a plan whose only cell failed for a cause with this log."""
    cell = ran(made, variant_of(made).name, cause=cause)
    gather(folder, cell, log=log)
    return verdict.of_run(made, run(cell), folder)


def proofs(found: Verdict) -> list[Proof]:
    """The lines of the evidence that say what the report says about its first question."""
    return [pair.proof for pair in found.answered[0].compared if pair.proof]


def test_the_same_words_and_the_same_cause_are_reproduced_with_the_line_that_shows_it(tmp_path: Path) -> None:
    made = plan(report(system(), words(NAMESPACE)), POLICY)
    found = of(made, tmp_path)
    assert found.result is Result.REPRODUCED
    assert found.why == (f"the same words, the same cause: {POLICY} (proved)",)
    [proof] = proofs(found)
    assert proof.file.endswith("logs/boxlite.log.2026-11-24")
    line = (tmp_path / proof.file).read_text().splitlines()[proof.line - 1]
    assert spaced(line) == proof.text
    assert "bwrap: No permissions to create a new namespace" in proof.text


def test_the_same_words_for_another_cause_are_reproduced_with_another_cause(tmp_path: Path) -> None:
    made = plan(report(system(), words(NAMESPACE)), POLICY)
    found = of(made, tmp_path, cause=CLONE)
    assert found.result is Result.OTHER_CAUSE
    assert found.why == (f"the same words, but the cause found is {CLONE} (proved), and not {POLICY}",)


@pytest.mark.parametrize("cause", [POLICY, CLONE])
def test_other_words_are_not_reproduced_whatever_the_cause(tmp_path: Path, cause: str) -> None:
    made = plan(report(system(), words("bwrap: Creating new namespace failed: Permission denied")), POLICY)
    found = of(made, tmp_path, cause=cause)
    assert found.result is Result.NOT_REPRODUCED
    assert "other words" in found.why[0]


def test_a_cell_that_passes_reproduces_nothing(tmp_path: Path) -> None:
    found = of(plan(report(system(), words(NAMESPACE)), POLICY), tmp_path, cause=None)
    assert (found.result, found.why) == (Result.NOT_REPRODUCED, ("every test passes",))


@pytest.mark.parametrize("status", [Status.ERROR, Status.NOT_RUN, Status.NOT_APPLICABLE, Status.FLAKY])
def test_a_cell_that_says_nothing_is_not_run_with_its_reason(tmp_path: Path, status: Status) -> None:
    made = plan(report(system("ubuntu", "24.04")), POLICY)
    cell = ran(made, variant_of(made).name, status=status, reason="image not available: no network")
    found = verdict.of_run(made, run(cell), tmp_path)
    assert (found.result, found.result.exit_status) == (Result.NOT_RUN, 3)
    assert found.why == (f"{status}: image not available: no network", made.hint)
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


def test_another_program_s_audit_line_is_the_same_refusal(tmp_path: Path) -> None:
    for line, result in (
        (audit(comm="element-desktop", pid="45964"), Result.REPRODUCED),
        (audit(operation="userns_create"), Result.NOT_REPRODUCED),
        (audit(capability="8", capname="setpcap"), Result.NOT_REPRODUCED),
    ):
        folder = tmp_path / line.fields["operation"] / line.fields["capability"]
        found = of(plan(report(system(), line), suspected(POLICY, line.quote)), folder)
        assert found.result is result


def test_a_line_that_only_ubuntu_s_kernel_writes_is_not_missed_elsewhere(tmp_path: Path) -> None:
    moved = audit(5, apparmor="AUDIT", operation="userns_create")
    said = report(system("ubuntu", "24.04"), moved, audit(6, comm="some-desktop"))
    found = of(
        plan(
            said,
            suspected(POLICY, moved.quote, quote(6, "audit: DENIED"), program="some-desktop"),
            nearest=True,
        ),
        tmp_path,
    )
    first, second = found.answered[0].compared
    assert (first.proof, first.untested) == (None, "only Ubuntu's kernel writes such a line")
    assert second.proof
    assert found.why == (
        f"the same words, the same cause: {POLICY} (proved); it was met by some-desktop in the report, and by "
        "boxlite here",
    )


def test_two_causes_are_told_apart_each_by_its_own_words(tmp_path: Path) -> None:
    line, said = audit(5), words(CANNOT_RUN, 4, Speaker.BOXLITE)
    made = plan(report(system(), said, line), suspected(POLICY, line.quote), suspected(CLONE, said.quote))
    first, second = (each.variant.name for each in made.questions if each.variant)
    cells = [ran(made, first, cause=POLICY), ran(made, second, cause=CLONE)]
    gather(tmp_path, cells[0])
    gather(tmp_path, cells[1], log=f"ERROR boxlite: {CANNOT_RUN}\n", kernel="")
    found = verdict.of_run(made, run(*cells), tmp_path)
    assert [each.result for each in found.answered] == [Result.REPRODUCED, Result.REPRODUCED]
    assert [[each.statement for each in answered.compared] for answered in found.answered] == [[line], [said]]
    assert found.result.exit_status == 0


def test_the_worst_of_several_answers_is_the_verdict(tmp_path: Path) -> None:
    line = audit(5)
    made = plan(report(system(), line), suspected(POLICY, line.quote), suspected(CLONE, quote(9)))
    cells = [ran(made, "apparmor-userns-nocaps", cause=POLICY), ran(made, "userns-clone-off")]
    for cell in cells:
        gather(tmp_path, cell)
    found = verdict.of_run(made, run(*cells), tmp_path)
    assert [each.result for each in found.answered] == [Result.REPRODUCED, Result.NOT_REPRODUCED]
    assert (found.result, found.result.exit_status) == (Result.NOT_REPRODUCED, 1)


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
    shown = [Finding(name=LIMIT, confidence=Confidence.LIKELY, why=why)]
    cell = ran(made, variant_of(made).name, cause=LIMIT, confidence=Confidence.LIKELY, causes=shown)
    gather(tmp_path, cell)
    found = verdict.of_run(made, run(cell), tmp_path)
    assert found.result is result
    if result is Result.REPRODUCED:
        assert "the same error, EAGAIN, met by another program than the report's" in found.why[0]


def test_output_of_a_command_is_not_looked_for_before_it_ran(tmp_path: Path) -> None:
    printed = words("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", 4)
    found = of(plan(report(system(), command("bwrap --unshare-net true", 3), printed), POLICY), tmp_path)
    assert found.result is Result.NOT_REPRODUCED
    assert "that cause was put on the guest, and no words of the report could be compared" in found.why[0]
    [compared] = found.answered[0].compared
    assert (compared.proof, compared.untested) == (
        None,
        "the command that printed it was not run; lab exec GUEST VARIANT -- COMMAND runs it",
    )


def test_other_words_may_be_those_of_another_bubblewrap(tmp_path: Path) -> None:
    said = words("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", 4)
    made = plan(report(system(), program("bubblewrap", "0.9.0"), said), POLICY)
    cell = ran(made, variant_of(made).name, cause=POLICY)
    gather(tmp_path, cell)
    found = verdict.of_run(made, run(cell), tmp_path)
    [compared] = found.answered[0].compared
    assert (compared.proof, compared.untested) == (None, "")
    assert found.result is Result.NOT_REPRODUCED
    assert found.why == (
        f"the same cause, {POLICY} (proved), but with other words than the report's; bubblewrap is 0.9.0 in "
        "the report and 0.12.0 here, and releases word one failure differently",
    )


@pytest.mark.parametrize(
    ("confidence", "result"),
    [(Confidence.PROVED, Result.REPRODUCED), (Confidence.LIKELY, Result.NOT_REPRODUCED)],
)
def test_without_words_settings_must_prove_it(tmp_path: Path, confidence: Confidence, result: Result) -> None:
    made = plan(report(system(), holds(SWITCH, "0")), CLONE)
    cell = ran(made, "report", cause=CLONE, confidence=confidence)
    gather(tmp_path, cell)
    assert verdict.of_run(made, run(cell), tmp_path).result is result


def test_a_report_without_a_cause_gets_the_one_found(tmp_path: Path) -> None:
    found = of(plan(report(system(), words(NAMESPACE))), tmp_path)
    assert (found.result, found.why) == (
        Result.REPRODUCED,
        (f"the same words; the cause found is {POLICY} (proved)",),
    )


@pytest.mark.parametrize(
    ("name", "result", "why"),
    [
        ("jailer_enabled_box_starts_and_executes", Result.REPRODUCED, "the tests that it names fail"),
        ("standard_mode_enables_jailer", Result.NOT_REPRODUCED, "quotes no words to compare"),
    ],
)
def test_a_named_test_that_fails_reproduces_it(tmp_path: Path, name: str, result: Result, why: str) -> None:
    found = of(plan(report(system(), named_test(name))), tmp_path)
    assert found.result is result
    assert why in found.why[0]


def test_a_plan_that_cannot_be_run_is_not_run_for_its_reasons() -> None:
    made = plan(report(system("pop", None)), POLICY)
    assert verdict.of_plan(made) == Verdict(Result.NOT_RUN, (*made.why_not, made.hint))


def test_short_words_prove_nothing(tmp_path: Path) -> None:
    found = of(plan(report(system(), words("Permission denied")), POLICY), tmp_path)
    assert found.result is Result.NOT_REPRODUCED


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
    found = verdict.of_run(made, run(cell), tmp_path / "run")
    assert proofs(found) == []
