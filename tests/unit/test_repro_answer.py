import json
import re
from pathlib import Path

from markdown_it import MarkdownIt

from lab import causes
from lab.catalog import remedies
from lab.record import CellResult, RemedyOutcome, RemedyResult
from lab.repro import answer, verdict
from lab.repro.answer import Subject
from lab.repro.planning import Plan
from lab.repro.report import Mood, Setting
from tests.builders import messages
from tests.builders.reports import (
    CLONE,
    POLICY,
    SWITCH,
    audit,
    gather,
    plan,
    quote,
    ran,
    report,
    run,
    suspected,
    system,
    tried,
    words,
)

MESSAGE = words("Sandbox preflight failed: bwrap cannot create user namespaces.")
AGAIN = "lab repro REPORT"


def subject(folder: Path, made: Plan, *cells: CellResult) -> Subject:
    done = run(*cells)
    return Subject(made, verdict.of_run(made, done, folder), done)


def blocked(folder: Path) -> Subject:
    """The answer to a report whose cause was reproduced and cured."""
    made = plan(report(system(), MESSAGE, tried(SWITCH, "1", helped=True)), CLONE)
    cell = ran(made, "userns-clone-off", cause=CLONE, cured_by=["userns-clone-on", "jailer-off"])
    gather(folder, cell, log=messages.USERNS_SYSCTL, kernel="")
    return subject(folder, made, cell, ran(made, "tried-1"))


def test_the_answer_has_run_cause_cure_script_and_command_and_nothing_of_the_machine(tmp_path: Path) -> None:
    answered = blocked(tmp_path)
    text = answer.render(answered)
    assert text.startswith("## Verdict: reproduced on debian-13\n")
    assert "| debian-13 | userns-clone-off |" in text
    assert "xfail userns-sysctl" in text
    assert causes.known()[CLONE].explanation in text
    script = remedies.find("userns-clone-on").script()
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
    assert "software emulation" not in answer.render(answered)


def test_the_nearest_guest_is_named_as_what_it_is(tmp_path: Path) -> None:
    line = audit()
    made = plan(report(system("ubuntu", "24.04"), line), suspected(POLICY, line.quote), nearest=True)
    cell = ran(made, "apparmor-userns-nocaps", cause=POLICY)
    gather(tmp_path, cell)
    answered = subject(tmp_path, made, cell)
    assert answer.headline(answered) == "reproduced on debian-13, under Ubuntu's policy; not on Ubuntu 24.04"
    assert "guest: debian-13, which is not Ubuntu 24.04" in answer.render(answered)


def test_what_is_not_run_says_why_what_is_missing_and_what_to_ask_for() -> None:
    made = plan(report(words("bwrap: no")), CLONE)
    text = answer.render(Subject(made, verdict.of_plan(made)))
    assert text.startswith("## Verdict: not run\n")
    assert "The report does not say: the distribution and its release, the version of boxlite" in text
    assert "lab probe" in text
    assert f"- {CLONE} (likely): the text says so" in text
    assert "### Do it again" not in text


def test_a_cell_that_no_remedy_cured_says_so_and_an_unknown_cause_is_not_explained(tmp_path: Path) -> None:
    made = plan(report(system(), MESSAGE))
    cell = ran(made, "stock", cause="unknown")
    gather(tmp_path, cell)
    text = answer.render(subject(tmp_path, made, cell))
    assert "Under stock the evidence shows none of the causes that the lab knows." in text
    assert "No remedy was tried on stock." in text


def test_a_remedy_that_the_cell_cannot_tell_about_is_told_with_the_reason(tmp_path: Path) -> None:
    made = plan(report(system(), MESSAGE))
    remedy = {"name": "apparmor-restrict-off", "result": RemedyOutcome.NOT_JUDGED, "reason": "why", "price": ""}
    cell = ran(made, "stock", cause=POLICY, remedies=[RemedyResult.model_validate(remedy)])
    gather(tmp_path, cell)
    text = answer.render(subject(tmp_path, made, cell))
    assert "No remedy was verified on stock: `apparmor-restrict-off` not judged here (why)." in text


def test_hostile_text_of_a_report_becomes_neither_markup_nor_a_control_sequence(tmp_path: Path) -> None:
    evil = "x\x1b[31m </details><script>alert(1)</script> | a | `code` ![x](http://evil.example/p.png) @all"
    hostile = Setting(quote(3, evil), evil, None, Mood.TRIED, helped=False)
    made = plan(report(system(), words(evil), hostile), CLONE)
    cell = ran(made, "userns-clone-off", cause=CLONE)
    gather(tmp_path, cell, log=f"2026-11-24T23:56:40Z ERROR boxlite::x: {evil}\n", kernel="")
    text = answer.render(subject(tmp_path, made, cell))
    assert "\x1b" not in text
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script>" not in html
    assert "<img" not in html
    assert "</details>" not in html
    # GitHub would make a mention of it.
    assert "@all" not in re.sub("`[^`]*`", "", text)


def test_the_document_for_programs_has_the_verdict_the_words_and_the_claims(tmp_path: Path) -> None:
    document = json.loads(json.dumps(answer.document(blocked(tmp_path))))
    keys = ("verdict", "guest", "is_host", "build")
    assert [document[key] for key in keys] == ["reproduced", "debian-13", True, "0.10.8"]
    [question] = document["questions"]
    assert (question["cause"], question["verdict"]) == (CLONE, "reproduced")
    quoted, cure = document["claims"]
    assert (quoted["line"], quoted["result"], quoted["file_line"]) == (4, "held", 2)
    assert (cure["line"], cure["result"], cure["file"]) == (3, "held", None)
    assert [cure["remedy"] for cure in document["cures"]] == ["userns-clone-on", "jailer-off"]
