"""Reading bug reports as a whole: long, hostile and damaged ones, JSON, commands, and what no rule reads."""

import json
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.repro import source
from lab.repro.reading import read
from lab.repro.report import (
    AuditLine,
    Command,
    Ended,
    Kernel,
    NamedTest,
    Probed,
    Program,
    Report,
    Setting,
    Speaker,
    System,
    Words,
)
from lab.repro.source import parse
from tests.builders.report_texts import (
    CLONE,
    FAMILY,
    KILLED,
    MANY_PROCESSES,
    MOVED,
    PROBE,
    RESTRICT,
    TWICE,
    holds,
    of,
    settings,
    tried,
)


def versions(report: Report, program: str) -> list[str]:
    return [each.version for each in report.of(Program) if each.name == program]


def test_a_flattened_page_whose_text_comes_twice_is_read_once() -> None:
    report = read(TWICE.encode())
    assert [each.name for each in report.of(NamedTest)] == [
        "jailer_enabled_box_starts_and_executes",
        "jailer_creates_isolated_mount_namespace",
    ]
    assert [(each.id, each.version) for each in report.of(System)] == [("ubuntu", "24.04")]
    assert [each.release for each in report.of(Kernel)] == ["7.0.0-1004-aws"]
    assert versions(report, "boxlite") == []
    [line] = report.of(AuditLine)
    assert line.quote.number == 10
    assert line.quote.text.endswith(r"capname=\"sys_admin\"")
    wanted = {
        "apparmor": "DENIED",
        "operation": "capable",
        "profile": "unprivileged_userns",
        "capability": "21",
    }
    assert wanted.items() <= line.fields.items()
    words = [(each.speaker, each.text, each.errno) for each in report.of(Words)]
    assert words == [
        (Speaker.BOXLITE, 'Config("Sandbox preflight failed: bwrap cannot create user namespaces.', None),
        (Speaker.BOXLITE, "failed to run bwrap: Permission denied (os error 13)", "EACCES"),
    ]
    assert settings(TWICE) == [
        tried(CLONE, "1", False),
        tried(RESTRICT, "0", False),
        tried("apparmor_parser -R /etc/apparmor.d/unprivileged_userns", None, False),
    ]


def test_an_exit_status_stands_for_a_signal_and_a_derivative_is_named() -> None:
    report = read(KILLED.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.like, system.or_derivative) == ("pop", None, "ubuntu", False)
    assert [(each.status, each.signal) for each in report.of(Ended)] == [(159, "SIGSYS")]
    assert versions(report, "boxlite") == ["0.5.13"]
    assert [each.release for each in report.of(Kernel)] == ["6.17.9-76061709-generic"]
    assert versions(report, "python") == ["3.14.2"]
    assert list(report.of(NamedTest)) == []
    assert report.title == "No box survives its start, status 159"


def test_a_report_without_a_host_is_a_report() -> None:
    report = read(MANY_PROCESSES.encode())
    assert list(report.of(System)) == []
    assert [(each.speaker, each.errno) for each in report.of(Words)] == [(Speaker.BUBBLEWRAP, "EAGAIN")]


def test_a_family_may_be_a_derivative_and_its_three_values_are_read() -> None:
    report = read(FAMILY.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.or_derivative) == ("ubuntu", "24.04", True)
    assert system.name == "Ubuntu 24.04 family"
    assert settings(FAMILY) == [
        holds(CLONE, "1"),
        holds("user.max_user_namespaces", "255645"),
        holds(RESTRICT, "1"),
    ]
    assert [each.errno for each in report.of(Words)] == ["EPERM", "EACCES"]
    assert [each.text for each in report.of(Command)] == [
        "bwrap --unshare-net --dev-bind / / true",
        "bwrap --dev-bind / / true",
    ]


def test_words_that_only_ubuntus_kernel_writes_tell_the_system() -> None:
    report = read(MOVED.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.inferred, system.or_derivative) == ("ubuntu", None, True, True)
    # Two spaces stand before capname.
    assert [line.fields.get("capname") for line in report.of(AuditLine)] == [None, "sys_admin"]
    assert [type(each) for each in report.statements][:3] == [Command, AuditLine, System]
    assert report.title == "With firejail --ignore=apparmor a window opens."
    assert settings(MOVED) == []


def test_a_report_is_called_by_its_first_words() -> None:
    assert read(b"### Describe the bug\n\nNo box starts.").title == "No box starts."
    assert read(b"# No box starts\n\nSince today.").title == "No box starts"
    assert read(b"```\n$ ls\n```").title == ""


def test_technical_lines_that_no_rule_reads_are_listed_once() -> None:
    report = read(b"```\nstrange output\nstrange output\n```\nA landlock rule denied it.\nGood morning.")
    assert [(each.number, each.text) for each in report.unread] == [
        (2, "strange output"),
        (5, "A landlock rule denied it."),
    ]


def issue(**fields: Any) -> Report:
    return read(json.dumps(fields).encode())


def test_an_issue_in_json_is_read_with_its_title_and_comments() -> None:
    report = issue(
        title="No box on Ubuntu 24.04",
        body="boxlite 0.10.8\r\n",
        comments=[{"author": {"login": "x"}, "body": f"{CLONE} = 0"}, {"body": None}],
    )
    assert report.title == "No box on Ubuntu 24.04"
    assert [(type(each), each.quote.number) for each in report.statements] == [
        (System, 1),
        (Program, 3),
        (Setting, 6),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the report is empty"),
        (b" \n\t\n", "the report is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary data, not text"),
        (bytes(range(256)) * 8, "binary data, not text"),
        (b"https://github.com/boxlite-ai/boxlite/issues/468\n", "gh issue view 468 --repo boxlite-ai/boxlite"),
        (b'{"title": "x"}', "JSON without any text in `body` or `comments`"),
        (b'{"title": "x", "body": null, "comments": []}', "JSON without any text"),
        (b"[1, 2]", "JSON, but no object with `body`"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(data)
    assert said in str(error.value)
    assert "\n  next: " in str(error.value)


def test_other_encodings_are_read() -> None:
    text = f"{CLONE} = 0"
    for data in (
        text.encode("utf-16"),
        text.encode("utf-8-sig"),
        b"\xff\xe9 \n" * 3 + text.encode() + b" " * 40,
    ):
        assert [each.value for each in read(data).of(Setting)] == ["0"]


def test_a_long_report_is_cut() -> None:
    report = read(b"Ubuntu 24.04\n" + b"x" * 5_000_000)
    assert report.cut
    assert report.size == 5_000_013
    assert [each.id for each in report.of(System)] == ["ubuntu"]


def test_a_million_lines_are_cut() -> None:
    report = read(b"$ sysctl -w kernel.a=0\n" * 1_000_000)
    assert report.cut
    assert len(report.statements) == 2


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "(" * 100_000,
        "`" * 100_000,
        "*a_" * 60_000,
        "[" * 100_000,
        "> " * 60_000,
        "kernel." * 30_000,
        "kernel.a." * 20_000 + "=",
        "/proc/sys/" * 20_000,
        "echo 1 | sudo tee " * 10_000,
        "boxlite " * 30_000,
        "boxlite-sdk-cli" * 15_000,
        "bwrap: " * 30_000,
        "apparmor=" * 20_000,
        'apparmor="D" ' + "a=b " * 50_000,
        'apparmor="D' + '\n="x' * 50_000,
        "avc:  denied  { " + " " * 200_000,
        "Ubuntu " * 30_000,
        ("Ubuntu" + " " * 3_000 + "x\n") * 60,
        "linux kernel version " * 10_000,
        "1.1.1-" * 30_000,
        "sudo -a " * 30_000,
        "A=b " * 50_000,
        "FAIL [ 1s] " * 20_000,
        "exit with code " * 15_000,
        "$ " * 100_000,
        "user@host:" * 20_000,
        "<!--" * 50_000,
        "|a" * 100_000,
        '{"body": ' * 1_000,
    ],
    ids=lambda text: text[:16],
)
def test_repeated_text_is_read_in_time(text: str) -> None:
    # The time limit of all tests ends a rule that tries each split of a line.
    for shape in (text, text.replace(" ", "\n")[:100_000], f"```\n{text}\n```"):
        report = read(shape.encode())
        assert len(report.statements) < 1_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "part",
    ["`a b` to works with ", "kernel.a=1 to works ", "chmod 1 /a to works to works ", "*a **b_ `c", "to help "],
)
def test_a_long_line_is_read_to_its_end(part: str) -> None:
    # A reader that tries each split of a line takes a quarter of an hour for this.
    read((part * (2**16 // len(part))).encode())


@pytest.mark.parametrize("text", ["Ubuntu &#x202e;24.04&#x202c; fails", "Ubuntu 24.04&#10;&NewLine;fails"])
def test_an_entity_does_not_hide_text_or_end_a_line(text: str) -> None:
    [line] = parse(text)
    assert not {"\u202e", "\u202c", "\n"} & set(line.text)


def test_control_characters_and_marks_that_hide_text_are_removed() -> None:
    text = "Ubuntu\u200b 24.04\x1b[31m \u202ered\x07\n$ rm -rf \x1b]0;x\x07/tmp/x\n"
    report = read(text.encode())
    shown = repr(report)
    assert not any(mark in shown for mark in ("\\x1b", "\\x07", "\u200b", "\u202e"))
    assert [each.version for each in report.of(System)] == ["24.04"]


def test_commands_are_kept_as_text() -> None:
    [command] = of(Command, "```\n$ $(touch /tmp/owned) `id`; rm -rf ~ && ../../etc/passwd\n```")
    assert command.text == "$(touch /tmp/owned) `id`; rm -rf ~ && ../../etc/passwd"


def test_the_limits_are_those_that_the_guide_names() -> None:
    assert (source.MOST_BYTES, source.MOST_CHARACTERS, source.MOST_LINES) == (8 * 2**20, 250_000, 10_000)


def test_the_output_of_the_probe_script_is_read_exactly_and_by_nothing_else() -> None:
    report = read(f"No box starts on it.\n\n```\n{PROBE}```\n\nboxlite 0.10.8\n".encode())
    [probed] = report.of(Probed)
    assert probed.host is not None
    assert not probed.host.probes.unshare_user.worked
    [system] = report.of(System)
    assert (system.id, system.version, system.name) == ("debian", "13", "Debian GNU/Linux 13 (trixie)")
    assert (system.quote.number, system.quote.text) == (5, "system: Debian GNU/Linux 13 (trixie)")
    assert [each.release for each in report.of(Kernel)] == ["6.12.57+deb13-amd64"]
    assert ("user.max_user_namespaces", "0") in [(each.name, each.value) for each in report.of(Setting)]
    assert list(report.of(Words)) == []
    assert versions(report, "boxlite") == ["0.10.8"]
    assert report.unread == ()


def test_a_quoted_output_of_the_probe_script_is_read_too() -> None:
    quoted = "".join(f"> {line}\n" for line in PROBE.splitlines())
    [probed] = of(Probed, f"The reporter sent:\n\n{quoted}\nThanks.")
    assert probed.host is not None


def test_of_a_damaged_output_nothing_is_read() -> None:
    lines = PROBE.splitlines()
    report = read("\n".join([*lines[:-5], *lines[-4:]]).encode())
    [probed] = report.statements
    assert isinstance(probed, Probed)
    assert (probed.host, "characters" in probed.damaged) == (None, True)


@pytest.mark.parametrize("lines", [5, -5], ids=["in its summary", "in its JSON"])
def test_what_follows_an_output_that_was_cut_off_is_read(lines: int) -> None:
    report = read("\n".join([*PROBE.splitlines()[:lines], "", "That is all. boxlite 0.10.8"]).encode())
    assert [type(each) for each in report.statements] == [Probed, Program]
