"""Reading bug reports: rows of texts and what they say, and whole, long, hostile and damaged ones."""

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.repro import settings as settings_of_reports
from lab.repro import source, systems
from lab.repro.reading import read_report
from lab.repro.report import (
    ArchitectureStatement,
    AuditLine,
    Command,
    ErrorMessage,
    KernelStatement,
    NamedTest,
    Place,
    ProbeOutput,
    ProgramEnd,
    ProgramVersion,
    Report,
    Setting,
    Speaker,
    System,
)
from lab.repro.settings import Outcome
from lab.repro.source import ReportText, parse
from tests.builders import messages
from tests.builders.report_texts import CLONE, MOVED, PROBE, RESTRICT, TWICE, of

CASES = tomllib.loads((Path(__file__).parents[1] / "data/repro/reading.toml").read_text())
REPEATED = CASES.pop("repeated")
CAME_OF_IT = {True: " helped", False: " in vain", None: ""}
APPARMOR = ("apparmor", "operation", "comm", "capability")


def named(system: System) -> str:
    return f"{system.id} {system.version or ''}".strip()


def settings(report: Report) -> list[str]:
    return [f"{one.mood} {one.written}{CAME_OF_IT[one.helped]}" for one in report.of(Setting)]


def by_place(report: Report) -> list[str]:
    ids = {system.place: system.id for system in report.of(System)}
    return [ids[Place.HOST], ids[Place.CONTAINER]]


def whole(report: Report) -> list[str]:
    """All of the first system, and what else is named."""
    [first, *others] = report.of(System)
    parts = [first.id, first.version or "", first.name, first.place, first.like or ""]
    return parts + [other.id for other in others if other.id != first.id]


READ: dict[str, Callable[[Report], list[str]]] = {
    "systems": lambda report: [named(system) for system in report.of(System) if not system.inferred],
    "host": lambda report: [named(report.host)] if report.host else [],
    "containers": by_place,
    "whole": whole,
    "kernels": lambda report: [kernel.release for kernel in report.of(KernelStatement)],
    "architectures": lambda report: [str(arch) for arch in report.of(ArchitectureStatement)],
    "programs": lambda report: [str(program) for program in report.of(ProgramVersion)],
    "settings": settings,
    "ended": lambda report: [f"{one.status} {one.signal or ''}".strip() for one in report.of(ProgramEnd)],
    "speakers": lambda report: [
        part for one in report.of(ErrorMessage) for part in (one.speaker, one.errno or "")
    ],
    "messages": lambda report: [
        part for one in report.of(ErrorMessage) for part in (one.operation or "", one.errno or "", one.text)
    ],
    "commands": lambda report: [command.text for command in report.of(Command)],
    "shown": lambda report: [str(setting) for setting in report.of(Setting)],
    "title": lambda report: [report.title],
    "unread": lambda report: [f"{line.number} {line.text}" for line in report.unread],
    "apparmor": lambda report: [
        " ".join(line.fields[key] for key in APPARMOR) for line in report.of(AuditLine)
    ],
}


@pytest.mark.parametrize(
    ("kind", "text", "says"), [(kind, text, says) for kind, rows in CASES.items() for text, *says in rows]
)
def test_what_a_text_says(kind: str, text: str, says: list[str]) -> None:
    assert READ[kind](read_report(text.encode())) == says


# -- whole reports


def test_a_flattened_page_whose_text_comes_twice_is_read_once() -> None:
    report = read_report(TWICE.encode())
    assert [test.name for test in report.of(NamedTest)] == [
        "jailer_enabled_box_starts_and_executes",
        "jailer_creates_isolated_mount_namespace",
    ]
    assert READ["systems"](report) == ["ubuntu 24.04"]
    assert READ["kernels"](report) == ["7.0.0-1004-aws"]
    assert READ["programs"](report) == []
    [line] = report.of(AuditLine)
    assert line.quote.number == 10
    assert line.quote.text.endswith(r"capname=\"sys_admin\"")
    fields = {
        "apparmor": "DENIED",
        "operation": "capable",
        "profile": "unprivileged_userns",
        "capability": "21",
    }
    assert fields.items() <= line.fields.items()
    assert [(one.speaker, one.text, one.errno) for one in report.of(ErrorMessage)] == [
        (Speaker.BOXLITE, 'Config("Sandbox preflight failed: bwrap cannot create user namespaces.', None),
        (Speaker.BOXLITE, "failed to run bwrap: Permission denied (os error 13)", "EACCES"),
    ]
    assert settings(report) == [
        f"tried {CLONE}=1 in vain",
        f"tried {RESTRICT}=0 in vain",
        "tried apparmor_parser -R /etc/apparmor.d/unprivileged_userns in vain",
    ]


def test_words_that_only_ubuntus_kernel_writes_tell_the_system() -> None:
    report = read_report(MOVED.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.inferred, system.or_derivative) == ("ubuntu", None, True, True)
    # Two spaces stand before capname.
    assert [line.fields.get("capname") for line in report.of(AuditLine)] == [None, "sys_admin"]


def test_an_issue_in_json_is_read_with_its_title_and_comments() -> None:
    issue = {
        "title": "No box on Ubuntu 24.04",
        "body": "boxlite 0.10.8\r\n",
        "comments": [{"author": {"login": "x"}, "body": f"{CLONE} = 0"}, {"body": None}],
    }
    report = read_report(json.dumps(issue).encode())
    assert report.title == "No box on Ubuntu 24.04"
    assert [(type(statement), statement.quote.number) for statement in report.statements] == [
        (System, 1),
        (ProgramVersion, 3),
        (Setting, 6),
    ]


# -- what is no report, and what is too long or hostile


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the report is empty"),
        (b" \n\t\n", "the report is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary data, not text"),
        (bytes(range(256)) * 8, "binary data, not text"),
        (b"https://github.com/boxlite-ai/boxlite/issues/468\n", "gh issue view 468 --repo boxlite-ai/boxlite"),
        (b'{"title": "x"}', "JSON without any text in `body` or `comments`"),
        (b'{"title": "x", "body": null, "comments": []}', "JSON without any text"),
        (b"[1, 2]", "JSON, but not an object with `body`"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UsageError) as error:
        read_report(data)
    assert why in str(error.value)
    assert "\n  next: " in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        f"{CLONE} = 0".encode("utf-16"),
        f"{CLONE} = 0".encode("utf-8-sig"),
        b"\xff\xe9 \n" * 3 + f"{CLONE} = 0".encode() + b" " * 40,
    ],
    ids=["UTF-16", "with a mark", "damaged"],
)
def test_other_encodings_are_read(data: bytes) -> None:
    assert settings(read_report(data)) == [f"holds {CLONE}=0"]


def test_the_tables_are_read_in_a_locale_that_is_not_utf_8() -> None:
    code = "from lab.repro import judging, reading"
    subprocess.run([sys.executable, "-c", code], check=True, env={"LC_ALL": "C", "PYTHONUTF8": "0"})


def test_a_long_report_is_cut_where_the_guide_says() -> None:
    assert (source.MOST_BYTES, source.MOST_CHARACTERS, source.MOST_LINES) == (8 * 2**20, 250_000, 10_000)
    report = read_report(b"Ubuntu 24.04\n" + b"x" * 5_000_000)
    assert (report.cut, report.size, READ["systems"](report)) == (True, 5_000_013, ["ubuntu 24.04"])
    report = read_report(b"$ sysctl -w kernel.a=0\n" * 1_000_000)
    assert (report.cut, len(report.statements)) == (True, 2)


SPACED = "Ubuntu" + " " * 3_000 + "x\n"


@pytest.mark.parametrize("row", [*REPEATED, ["", SPACED]])
def test_repeated_text_is_read_in_time(row: list[str]) -> None:
    before, part, *after = row
    text = before + part * (200_000 // len(part)) + "".join(after)
    # The time limit of all tests ends a rule that tries each split of a line.
    for shape in (text, text.replace(" ", "\n")[:100_000], f"```\n{text}\n```"):
        report = read_report(shape.encode())
        assert len(report.statements) < 1_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "part",
    ["`a b` to works with ", "kernel.a=1 to works ", "chmod 1 /a to works to works ", "*a **b_ `c", "to help "],
)
def test_a_long_line_is_read_to_its_end(part: str) -> None:
    # A reader that tries each split of a line takes a quarter of an hour for this.
    read_report((part * (2**16 // len(part))).encode())


@pytest.mark.parametrize(
    "sentence", ["You add your user to the kvm group. ", f"{CLONE}=1 ", "chmod 1 /a ", "--privileged is x. "]
)
def test_the_words_around_a_step_are_judged_so_often_at_most(
    sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    outcome_of = settings_of_reports.judge_outcome

    def counted(text: ReportText, index: int, start: int, end: int, **more: bool) -> Outcome:
        judged.append(index)
        return outcome_of(text, index, start, end, **more)

    monkeypatch.setattr(settings_of_reports, "judge_outcome", counted)
    read_report((f"{sentence}\n\n" * 3 * settings_of_reports.MOST).encode())
    assert 0 < len(judged) <= 2 * settings_of_reports.MOST


def test_so_many_systems_and_hosts_of_prompts_are_looked_at_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: Counter[str] = Counter()
    is_another, hosts = systems.is_another_system, systems.compile_host_patterns()["debian"]

    def counted(*words: Any, is_family: bool) -> bool:
        looked_at["systems"] += 1
        return is_another(*words, is_family=is_family)

    class CountedHosts:
        def fullmatch(self, name: str) -> re.Match[str] | None:
            looked_at["hosts"] += 1
            return hosts.fullmatch(name)

    monkeypatch.setattr(systems, "is_another_system", counted)
    monkeypatch.setattr(systems, "compile_host_patterns", lambda: {"debian": CountedHosts()})
    assert READ["systems"](read_report(b"I use Ubuntu 24.04 and Debian 12.\n\n" * 2_000))[:1] == [
        "ubuntu 24.04"
    ]
    read_report("".join(f"me@host-{number}:~$ x\n\n" for number in range(2_000)).encode())
    most = systems.MOST + source.MOST_ON_A_LINE
    assert 0 < looked_at["systems"] <= most and 0 < looked_at["hosts"] <= most


@pytest.mark.parametrize("text", ["Ubuntu &#x202e;24.04&#x202c; fails", "Ubuntu 24.04&#10;&NewLine;fails"])
def test_an_entity_does_not_hide_text_or_end_a_line(text: str) -> None:
    [line] = parse(text)
    assert not {"\u202e", "\u202c", "\n"} & set(line.text)


def test_control_characters_and_marks_that_hide_text_are_removed() -> None:
    text = "Ubuntu\u200b 24.04\x1b[31m \u202ered\x07\n$ rm -rf \x1b]0;x\x07/tmp/x\n"
    report = read_report(text.encode())
    assert not any(mark in repr(report) for mark in ("\\x1b", "\\x07", "\u200b", "\u202e"))
    assert READ["systems"](report) == ["ubuntu 24.04"]


# -- the output of the probe script


def test_the_output_of_the_probe_script_is_read_exactly_and_by_nothing_else() -> None:
    report = read_report(f"No box starts on it.\n\n```\n{PROBE}```\n\nboxlite 0.10.8\n".encode())
    [probed] = report.of(ProbeOutput)
    assert probed.host is not None
    assert not probed.host.probes.unshare_user.worked
    [system] = report.of(System)
    assert (system.id, system.version, system.name) == ("debian", "13", "Debian GNU/Linux 13 (trixie)")
    assert (system.quote.number, system.quote.text) == (5, "system: Debian GNU/Linux 13 (trixie)")
    assert READ["kernels"](report) == ["6.12.57+deb13-amd64"]
    assert READ["architectures"](report) == ["x86_64"]
    assert "holds user.max_user_namespaces=0" in settings(report)
    assert list(report.of(ErrorMessage)) == []
    assert READ["programs"](report) == ["boxlite 0.10.8"]
    assert report.unread == ()


def test_a_quoted_output_is_read_and_of_a_damaged_one_nothing() -> None:
    lines = PROBE.splitlines()
    quoted = "".join(f"> {line}\n" for line in lines)
    [probed] = of(ProbeOutput, f"The reporter sent:\n\n{quoted}\nThanks.")
    assert probed.host is not None
    [probed] = of(ProbeOutput, "\n".join([*lines[:-5], *lines[-4:]]))
    assert (probed.host, "characters" in probed.damaged) == (None, True)


@pytest.mark.parametrize("lines", [5, -5], ids=["in its summary", "in its JSON"])
def test_what_follows_an_output_that_was_cut_off_is_read(lines: int) -> None:
    report = read_report("\n".join([*PROBE.splitlines()[:lines], "", "That is all. boxlite 0.10.8"]).encode())
    assert [type(statement) for statement in report.statements] == [ProbeOutput, ProgramVersion]


# -- settings and failures


def test_a_container_has_its_hosts_kernel() -> None:
    text = "## In the container\n\nkernel.unprivileged_userns_clone = 1\n\nuser.max_user_namespaces = 0"
    assert [setting.place for setting in of(Setting, text)] == [Place.HOST, Place.CONTAINER]


@pytest.mark.parametrize("shape", ["{}", "```\n{}```"])
def test_what_boxlite_advises_was_done_by_nobody(shape: str) -> None:
    [_, advice] = messages.USERNS_SYSCTL.split("\n", 1)
    text = advice.partition("2026-11-24T23:56:40.384210Z")[0]
    report = read_report(shape.format(text).encode())
    # boxlite read the value that it blames.
    assert settings(report) == [f"holds {CLONE}=0"]
    assert READ["commands"](report) == []
    assert report.unread == ()
    boxlite, bubblewrap = Speaker.BOXLITE, Speaker.BUBBLEWRAP
    assert READ["speakers"](report)[::2] == [boxlite, boxlite, bubblewrap, boxlite, boxlite]


@pytest.mark.parametrize(
    "step",
    [
        "FROM debian:13\nRUN apt-get update && \\\n    apt-get install -y bubblewrap && \\\n    {}\nUSER me",
        "FROM debian:13\nRUN {}\nCOPY setup.sh /setup.sh",
        "#7 [3/9] RUN {}\n#7 DONE 0.4s",
        "Step 3/9 : RUN {}\n ---> 0123456789ab",
        " => [3/9] RUN {}   0.4s",
        "2026-11-24T23:56:40.3842100Z ##[group]Run sudo {}",
    ],
)
def test_a_step_of_a_build_is_no_cure_that_was_tried(step: str) -> None:
    for change in ("chmod u+s /usr/bin/bwrap", "setcap cap_sys_admin+ep /usr/bin/bwrap"):
        text = (
            f"The image builds, and this works:\n\n```\n{step.format(change)}\n```\n\nThat fixed the build.\n"
        )
        assert settings(read_report(text.encode())) == []
        # The same command in a terminal is what the words around it are about.
        text = f"This works:\n\n```\n$ sudo {change}\n```\n\nThat fixed it.\n"
        assert settings(read_report(text.encode())) == [f"tried {change} helped"]


@pytest.mark.parametrize("how", ["run sudo sysctl -p", "run `sysctl -p`", "run the command"])
def test_a_command_to_run_is_no_success(how: str) -> None:
    text = f"bwrap fails.\n\nPut user.max_user_namespaces=28633 into /etc/sysctl.conf and {how}\n"
    assert settings(read_report(text.encode())) == ["tried user.max_user_namespaces=28633"]
    text = "With user.max_user_namespaces=28633 my boxes run again.\n"
    assert settings(read_report(text.encode())) == ["tried user.max_user_namespaces=28633 helped"]


def test_a_value_with_spaces_is_whole_where_nothing_is_quoted() -> None:
    text = "type=AVC : apparmor=DENIED operation=open info=Failed name lookup - disconnected path error=-13"
    [line] = of(AuditLine, text)
    assert (line.fields["info"], line.fields["error"]) == ("Failed name lookup - disconnected path", "-13")


def test_a_test_that_passes_does_not_fail() -> None:
    assert of(NamedTest, "jailer_disabled_box_starts_and_executes passes") == []
    [test] = of(NamedTest, "test jailer::another_one ... FAILED")
    assert (test.name, test.known) == ("jailer::another_one", False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "```\nCaused by:\n    3: failed to open /dev/kvm\n    4: Permission denied (os error 13)\n```",
            ("kvm", "EACCES", 3),
        ),
        (
            '```\n  File "<string>", line 1, in <module>\n    import os; os.unshare(os.CLONE_NEWUSER)\n'
            "               ~~~~~~~~~~^^^^^^^^^^^^^^^^^^\n"
            "PermissionError: [Errno 1] Operation not permitted\n```",
            ("namespace", "EPERM", 3),
        ),
    ],
    ids=["chain", "traceback"],
)
def test_the_error_of_a_message_may_be_on_a_line_below(text: str, message: tuple[str, str, int]) -> None:
    [words] = of(ErrorMessage, text)
    assert (words.operation, words.errno, words.quote.number) == message
