"""What the text of a report alone shows: causes, contradictions and warnings."""

import json
import tomllib
from pathlib import Path

import pytest

from lab import catalog, causes
from lab.record import Confidence
from lab.repro.judging import FLOOR, MEASURED, TABLE, judge_report
from lab.repro.messages import find_message
from lab.repro.reading import read_report
from lab.repro.report import JudgedReport, PossibleCause, Quote
from tests.builders.report_texts import FAMILY, KILLED, MOVED, PROBE, TWICE

RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"
NOCAPS = "apparmor-userns-nocaps"
KNOWN = catalog.load_catalog()
LINE = 'apparmor="DENIED" operation="capable" profile="unprivileged_userns" comm="{}" capname="sys_admin"'
DATA = Path(__file__).parents[1] / "data/repro"
# Texts by the cause that they make likely, and those that make none likely.
CASES = tomllib.loads((DATA / "judging.toml").read_text())
REMARKS = tomllib.loads((DATA / "remarks.toml").read_text())
NONE = "none"
# The keys of each table of `judging.toml`.
KEYS = {
    "topic": {"name", "pattern"},
    "field": {"name", "operations", "prior", "refused"},
    "chance": {"operation", "errno", "program", "topic", "text", "of", "remark", "source"},
    "shipped": {"ids", "versions", "kernels", "topic", "of", "why", "source"},
    "fact": {"topic", "engine", "of", "why", "source"},
    "setting": {"name", "value", "beside", "alone", "by_mood"},
    "check": {"cause", "command", "shows"},
}


def whole(text: str) -> str:
    """A text, or the whole report that a word in capitals stands for."""
    return {"FAMILY": FAMILY, "KILLED": KILLED, "TWICE": TWICE}.get(text, text)


def judged(text: str) -> JudgedReport:
    return judge_report(read_report(text.encode()))


def named(text: str) -> list[tuple[str, str, str]]:
    """The causes that a text shows, each with how sure that is and the program that it blocks."""
    return [(finding.name, str(finding.confidence), finding.program) for finding in judged(text).findings]


def remarks(text: str) -> str:
    return "\n".join(remark.text for remark in judged(text).remarks)


def numbers(quotes: tuple[Quote, ...]) -> list[int]:
    return [quote.number for quote in quotes]


def names(possible: tuple[PossibleCause, ...]) -> list[str]:
    return [cause.name for cause in possible]


@pytest.mark.parametrize("rows", KEYS)
def test_a_row_has_the_keys_that_are_read(rows: str) -> None:
    assert {key for row in TABLE[rows] for key in row} == KEYS[rows]


def test_every_row_is_about_a_known_cause_and_each_has_a_command_that_tells_it() -> None:
    table = TABLE
    odds = [row["of"] for rows in ("chance", "shipped", "fact") for row in table[rows]]
    odds += [field["prior"] for field in table["field"]]
    by_mood = [row["by_mood"] for row in table["setting"]]
    odds += [factors for moods in by_mood for factors in moods.values()]
    causes_ = {cause for row in odds for cause in row} - {"other"}
    assert causes_ <= set(causes.list_causes())
    assert causes_ == {check["cause"] for check in table["check"]}
    assert {mood for moods in by_mood for mood in moods} <= table["moods"].keys()


def test_what_was_measured_names_its_guest_or_its_source_and_a_known_cause() -> None:
    rows = json.loads(MEASURED.read_text())
    assert rows
    for row in rows:
        assert row["cause"] in causes.list_causes()
        assert "source" in row or (row["guest"] in KNOWN.guests and row["variant"] in KNOWN.variants)
        assert row["words"] or row["audit"]


def test_a_message_that_was_measured_under_a_cause_is_not_ruled_out_for_it() -> None:
    # Of a message that several causes have, the table decides which are named.
    rows = json.loads(MEASURED.read_text())
    said = {(row["cause"], find_message(Quote(0, words), words)) for row in rows for words in row["words"]}
    compared = 0
    for cause, message in said:
        for field in TABLE["field"]:
            if message is not None and message.operation in field["operations"] and message.means:
                [row, *_] = sorted(
                    (
                        row
                        for row in TABLE["chance"]
                        if row["operation"] == message.operation
                        and row.get("errno") in (None, message.means)
                        and message.program in row.get("program", [message.program])
                        and {"topic", "text"}.isdisjoint(row)
                    ),
                    key=lambda row: "program" not in row,
                )
                assert cause in field["prior"]
                assert row["of"].get(cause, FLOOR) > 10 * FLOOR, (cause, message)
                compared += 1
    assert compared > 20


CHILD = 'apparmor="DENIED" operation="mount" profile="lxc-9" name="/run/systemd/unit-root/" comm="(d-logind)"'
SELINUX = 'avc:  denied  {{ {} }} for  pid=1 comm="bwrap" scontext=a tcontext=b tclass={} permissive=0'


@pytest.mark.parametrize(
    ("lines", "causes_"),
    [
        (LINE.format("bwrap"), [(NOCAPS, "proved", "bwrap")]),
        (SELINUX.format("create", "user_namespace"), [("selinux-userns-deny", "proved", "bwrap")]),
        (SELINUX.format("mounton", "dir"), [("selinux-mount-deny", "proved", "bwrap")]),
        (SELINUX.format("mount", "filesystem"), [("selinux-mount-deny", "proved", "bwrap")]),
        (SELINUX.format("remount", "filesystem"), [("selinux-mount-deny", "proved", "bwrap")]),
        # Ubuntu logs these where bubblewrap works, too.
        (LINE.format("tokio-rt-worker"), [(NOCAPS, "likely", "bwrap")]),
        (LINE.format("unshare"), [(NOCAPS, "likely", "bwrap")]),
        # systemd's child becomes the program of a service. Its name may be cut off at the beginning.
        (CHILD, [("apparmor-mount-deny", "proved", "(d-logind)")]),
        (
            SELINUX.replace("bwrap", "(fwupd)").format("mounton", "dir"),
            [("selinux-mount-deny", "proved", "fwupd")],
        ),
        # It names no program.
        (LINE.replace('comm="{}" ', ""), [(NOCAPS, "likely", "bwrap")]),
    ],
)
def test_what_audit_lines_show(lines: str, causes_: list[tuple[str, str, str]]) -> None:
    assert named(lines) == causes_


def test_another_program_is_not_cured_by_a_profile_for_bubblewrap() -> None:
    [finding] = judged(MOVED).findings
    assert (finding.name, finding.confidence, finding.program) == (NOCAPS, Confidence.PROVED, "some-desktop")
    assert numbers(finding.quotes) == [3, 4]
    assert "does not cure some-desktop" in remarks(MOVED)


@pytest.mark.parametrize(("text", "cause", "lines", "why"), REMARKS["likely"])
def test_a_likely_cause_says_why_and_quotes_the_lines(
    text: str, cause: str, lines: list[int], why: list[str]
) -> None:
    [finding] = judged(whole(text)).findings
    assert (finding.name, finding.confidence, numbers(finding.quotes)) == (cause, Confidence.LIKELY, lines)
    assert all(words in finding.reason for words in why)
    # The uid map is denied with EACCES for the missing attach_disconnected.
    assert "capability" not in finding.reason


def test_a_report_may_name_two_causes_of_different_kinds() -> None:
    text = "Ubuntu 24.04\n\nFailed to open /dev/kvm: Permission denied\n\n"
    text += "bwrap: setting up uid map: Permission denied"
    assert [name for name, _, _ in named(text)] == ["kvm-denied", NOCAPS]


def test_the_output_of_the_probe_script_proves_a_cause_unless_it_is_damaged() -> None:
    [finding] = judged(PROBE).findings
    assert (finding.name, finding.confidence) == ("userns-limit", Confidence.PROVED)
    assert 1 in numbers(finding.quotes)
    damaged = "\n".join(PROBE.splitlines()[:30])
    assert judged(damaged).findings == ()
    assert "Of the probe's output nothing is used" in remarks(damaged)


@pytest.mark.parametrize(("text", "remark", "lines"), REMARKS["remarks"])
def test_a_contradiction_and_a_wrong_conclusion_are_remarked(text: str, remark: str, lines: list[int]) -> None:
    [made] = [made for made in judged(whole(text)).remarks if remark in made.text]
    assert not lines or sorted(set(numbers(made.quotes))) == sorted(lines)
    # A kernel of the system's family is no contradiction.
    assert remarks("Linux Mint 22, kernel 6.8.0-45-generic") == ""
    # Neither is what is said of the system that it derives from.
    assert "two systems" not in remarks("Apps crash on Linux Mint 22\n\nUbuntu 24.04 restricts namespaces")


def test_a_hostile_report_is_judged_in_bounds() -> None:
    lines = [f'apparmor="DENIED" operation="userns_create" profile="p{i}" comm="prog{i}"' for i in range(300)]
    lines += [f"bwrap: message {i}: Permission denied\nkernel.a{i} = 0\nUbuntu 24.{i:02}" for i in range(99)]
    result = judged("\n".join(lines))
    assert len(result.findings) <= 10
    assert len(result.remarks) <= 20


@pytest.mark.parametrize(("cause", "text"), [(cause, text) for cause, texts in CASES.items() for text in texts])
def test_the_words_of_programs_and_the_named_system_make_a_cause_likely_or_none(cause: str, text: str) -> None:
    findings = judged(text).findings
    expected = [] if cause == NONE else [(cause, Confidence.LIKELY)]
    assert [(finding.name, finding.confidence) for finding in findings] == expected
    assert all(finding.quotes for finding in findings)


@pytest.mark.parametrize(("text", "is_named"), REMARKS["refused"])
def test_a_refused_file_is_an_execution_only_if_something_says_so(text: str, is_named: bool) -> None:
    result = judged(text)
    named_causes = [finding.name for finding in result.findings] + [cause.name for cause in result.possible]
    assert ("home-noexec" in named_causes) is is_named


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Ubuntu 24.04. With AppArmor my browser does not start", NOCAPS),
        ("I have a linux-hardened kernel and my browser does not start", "userns-sysctl"),
    ],
)
def test_words_of_failure_beside_a_strong_circumstance_make_a_cause_possible(text: str, cause: str) -> None:
    result = judged(text)
    assert not result.findings
    assert [(one.name, bool(one.command)) for one in result.possible] == [(cause, True)]
    # The circumstance alone, and the words alone, tell nothing.
    assert judged(text.replace("does not start", "is nice")).possible == ()
    assert judged("Ubuntu 24.04. My browser does not start").possible == ()


def test_a_cure_is_no_evidence_for_a_cause_that_it_cannot_cure() -> None:
    result = judged("/dev/kvm: No such file or directory\n\nAfter `sudo chmod 666 /dev/kvm` it works.")
    assert not any("chmod" in finding.reason for finding in result.findings if finding.name == "kvm-absent")


def test_possible_causes_are_ranked_with_what_tells_them_apart() -> None:
    result = judged("Debian 12\n\nbwrap: No permissions to create new namespace, likely because x")
    assert names(result.possible) == ["userns-sysctl", "seccomp"]
    assert result.possible[0].share > result.possible[1].share
    assert result.possible[0].command == "sysctl kernel.unprivileged_userns_clone"
    against = judged("Fedora 43\n\nbwrap: No permissions to create new namespace, likely because x").possible
    assert names(against) == ["seccomp"]
    waved_off = judged(
        "bwrap: No permissions to create new namespace\n\nkernel.unprivileged_userns_clone = 1 here"
    )
    assert "userns-sysctl" not in names(waved_off.possible)
    assert judged("bwrap: setting up uid map: Permission denied").possible == ()
