"""Reading bug reports: rows of texts and what they say, and whole, long, hostile and damaged ones."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.repro import settings as settings_of_reports
from lab.repro import source
from lab.repro.reading import read
from lab.repro.report import (
    AuditLine,
    Command,
    Ended,
    Kernel,
    NamedTest,
    Place,
    Probed,
    Program,
    Report,
    Setting,
    Speaker,
    System,
    Words,
)
from lab.repro.settings import Outcome
from lab.repro.source import Text, parse
from tests.builders.report_texts import (
    CLONE,
    FAMILY,
    KILLED,
    MANY_PROCESSES,
    MOVED,
    PROBE,
    RESTRICT,
    TWICE,
    of,
)

CASES = tomllib.loads((Path(__file__).parent / "data/repro/reading.toml").read_text())
CAME_OF_IT = {True: " helped", False: " in vain", None: ""}


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
    "kernels": lambda report: [kernel.release for kernel in report.of(Kernel)],
    "programs": lambda report: [str(program) for program in report.of(Program)],
    "settings": settings,
    "ended": lambda report: [f"{one.status} {one.signal or ''}".strip() for one in report.of(Ended)],
    "speakers": lambda report: [part for one in report.of(Words) for part in (one.speaker, one.errno or "")],
    "messages": lambda report: [
        part for one in report.of(Words) for part in (one.step or "", one.errno or "", one.text)
    ],
    "commands": lambda report: [command.text for command in report.of(Command)],
}


@pytest.mark.parametrize(
    ("kind", "text", "says"), [(kind, text, says) for kind, rows in CASES.items() for text, *says in rows]
)
def test_what_a_text_says(kind: str, text: str, says: list[str]) -> None:
    assert READ[kind](read(text.encode())) == says


# -- whole reports


def test_a_flattened_page_whose_text_comes_twice_is_read_once() -> None:
    report = read(TWICE.encode())
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
    assert [(one.speaker, one.text, one.errno) for one in report.of(Words)] == [
        (Speaker.BOXLITE, 'Config("Sandbox preflight failed: bwrap cannot create user namespaces.', None),
        (Speaker.BOXLITE, "failed to run bwrap: Permission denied (os error 13)", "EACCES"),
    ]
    assert settings(report) == [
        f"tried {CLONE}=1 in vain",
        f"tried {RESTRICT}=0 in vain",
        "tried apparmor_parser -R /etc/apparmor.d/unprivileged_userns in vain",
    ]


def test_an_exit_status_stands_for_a_signal_and_a_derivative_is_named() -> None:
    report = read(KILLED.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.like, system.or_derivative) == ("pop", None, "ubuntu", False)
    assert READ["ended"](report) == ["159 SIGSYS"]
    assert {"boxlite 0.5.13", "python 3.14.2"} <= set(READ["programs"](report))
    assert READ["kernels"](report) == ["6.17.9-76061709-generic"]
    assert list(report.of(NamedTest)) == []
    assert report.title == "No box survives its start, status 159"


def test_a_report_without_a_host_is_a_report() -> None:
    report = read(MANY_PROCESSES.encode())
    assert report.host is None
    assert READ["speakers"](report) == [Speaker.BUBBLEWRAP, "EAGAIN"]


def test_a_family_may_be_a_derivative_and_its_three_values_are_read() -> None:
    report = read(FAMILY.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.or_derivative) == ("ubuntu", "24.04", True)
    assert system.name == "Ubuntu 24.04 family"
    assert settings(report) == [
        f"holds {CLONE}=1",
        "holds user.max_user_namespaces=255645",
        f"holds {RESTRICT}=1",
    ]
    assert READ["speakers"](report)[1::2] == ["EPERM", "EACCES"]
    assert READ["commands"](report) == ["bwrap --unshare-net --dev-bind / / true", "bwrap --dev-bind / / true"]


def test_words_that_only_ubuntus_kernel_writes_tell_the_system() -> None:
    report = read(MOVED.encode())
    [system] = report.of(System)
    assert (system.id, system.version, system.inferred, system.or_derivative) == ("ubuntu", None, True, True)
    # Two spaces stand before capname.
    assert [line.fields.get("capname") for line in report.of(AuditLine)] == [None, "sys_admin"]
    assert [type(statement) for statement in report.statements][:3] == [Command, AuditLine, System]
    assert report.title == "With firejail --ignore=apparmor a window opens."
    assert settings(report) == []


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("### Describe the bug\n\nNo box starts.", "No box starts."),
        ("# No box starts\n\nSince today.", "No box starts"),
        ("```\n$ ls\n```", ""),
    ],
)
def test_a_report_is_called_by_its_first_words(text: str, title: str) -> None:
    assert read(text.encode()).title == title


def test_technical_lines_that_no_rule_reads_are_listed_once() -> None:
    report = read(b"```\nstrange output\nstrange output\n```\nA landlock rule denied it.\nGood morning.")
    assert [(line.number, line.text) for line in report.unread] == [
        (2, "strange output"),
        (5, "A landlock rule denied it."),
    ]


def test_an_issue_in_json_is_read_with_its_title_and_comments() -> None:
    issue = {
        "title": "No box on Ubuntu 24.04",
        "body": "boxlite 0.10.8\r\n",
        "comments": [{"author": {"login": "x"}, "body": f"{CLONE} = 0"}, {"body": None}],
    }
    report = read(json.dumps(issue).encode())
    assert report.title == "No box on Ubuntu 24.04"
    assert [(type(statement), statement.quote.number) for statement in report.statements] == [
        (System, 1),
        (Program, 3),
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
        (b"[1, 2]", "JSON, but no object with `body`"),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UsageError) as error:
        read(data)
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
    assert settings(read(data)) == [f"holds {CLONE}=0"]


def test_a_long_report_is_cut_where_the_guide_says() -> None:
    assert (source.MOST_BYTES, source.MOST_CHARACTERS, source.MOST_LINES) == (8 * 2**20, 250_000, 10_000)
    report = read(b"Ubuntu 24.04\n" + b"x" * 5_000_000)
    assert (report.cut, report.size, READ["systems"](report)) == (True, 5_000_013, ["ubuntu 24.04"])
    report = read(b"$ sysctl -w kernel.a=0\n" * 1_000_000)
    assert (report.cut, len(report.statements)) == (True, 2)


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
        'apparmor="D" ' + ",a=b" * 50_000,
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
        "-->" + "<!--" * 50_000,
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


@pytest.mark.parametrize(
    "sentence", ["You add your user to the kvm group. ", f"{CLONE}=1 ", "chmod 1 /a ", "--privileged is x. "]
)
def test_the_words_around_a_step_are_judged_so_often_at_most(
    sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    outcome_of = settings_of_reports.outcome_of

    def counted(text: Text, index: int, start: int, end: int, **more: bool) -> Outcome:
        judged.append(index)
        return outcome_of(text, index, start, end, **more)

    monkeypatch.setattr(settings_of_reports, "outcome_of", counted)
    read((f"{sentence}\n\n" * 3 * settings_of_reports.MOST).encode())
    assert 0 < len(judged) <= 2 * settings_of_reports.MOST


@pytest.mark.parametrize("text", ["Ubuntu &#x202e;24.04&#x202c; fails", "Ubuntu 24.04&#10;&NewLine;fails"])
def test_an_entity_does_not_hide_text_or_end_a_line(text: str) -> None:
    [line] = parse(text)
    assert not {"\u202e", "\u202c", "\n"} & set(line.text)


def test_control_characters_and_marks_that_hide_text_are_removed() -> None:
    text = "Ubuntu\u200b 24.04\x1b[31m \u202ered\x07\n$ rm -rf \x1b]0;x\x07/tmp/x\n"
    report = read(text.encode())
    assert not any(mark in repr(report) for mark in ("\\x1b", "\\x07", "\u200b", "\u202e"))
    assert READ["systems"](report) == ["ubuntu 24.04"]


# -- the output of the probe script


def test_the_output_of_the_probe_script_is_read_exactly_and_by_nothing_else() -> None:
    report = read(f"No box starts on it.\n\n```\n{PROBE}```\n\nboxlite 0.10.8\n".encode())
    [probed] = report.of(Probed)
    assert probed.host is not None
    assert not probed.host.probes.unshare_user.worked
    [system] = report.of(System)
    assert (system.id, system.version, system.name) == ("debian", "13", "Debian GNU/Linux 13 (trixie)")
    assert (system.quote.number, system.quote.text) == (5, "system: Debian GNU/Linux 13 (trixie)")
    assert READ["kernels"](report) == ["6.12.57+deb13-amd64"]
    assert "holds user.max_user_namespaces=0" in settings(report)
    assert list(report.of(Words)) == []
    assert READ["programs"](report) == ["boxlite 0.10.8"]
    assert report.unread == ()


def test_a_quoted_output_of_the_probe_script_is_read_too() -> None:
    quoted = "".join(f"> {line}\n" for line in PROBE.splitlines())
    [probed] = of(Probed, f"The reporter sent:\n\n{quoted}\nThanks.")
    assert probed.host is not None


def test_of_a_damaged_output_nothing_is_read() -> None:
    lines = PROBE.splitlines()
    [probed] = read("\n".join([*lines[:-5], *lines[-4:]]).encode()).statements
    assert isinstance(probed, Probed)
    assert (probed.host, "characters" in probed.damaged) == (None, True)


@pytest.mark.parametrize("lines", [5, -5], ids=["in its summary", "in its JSON"])
def test_what_follows_an_output_that_was_cut_off_is_read(lines: int) -> None:
    report = read("\n".join([*PROBE.splitlines()[:lines], "", "That is all. boxlite 0.10.8"]).encode())
    assert [type(statement) for statement in report.statements] == [Probed, Program]


def test_a_pasted_os_release_names_a_distribution_that_the_table_lacks() -> None:
    text = '```\nPRETTY_NAME="Nemo 7"\nNAME="Nemo"\nVERSION_ID="7"\nID=nemo\nID_LIKE="ubuntu debian"\n```'
    report = read(text.encode())
    assert whole(report) == ["nemo", "7", "Nemo 7", Place.HOST, "ubuntu"]
    assert report.unread == ()


def test_what_a_program_printed_outweighs_a_form_and_a_form_outweighs_a_sentence() -> None:
    sentence, form = "It fails, and on Debian 12 too.", "OS: Fedora 43"
    printed = '```\nNAME="Arch Linux"\nID=arch\n```'
    assert READ["systems"](read(f"{sentence}\n\n{form}".encode())) == ["fedora 43"]
    assert READ["systems"](read(f"{sentence}\n\n{form}\n\n{printed}".encode())) == ["arch"]


# -- settings and failures


def test_a_container_has_its_hosts_kernel() -> None:
    text = "## In the container\n\nkernel.unprivileged_userns_clone = 1\n\nuser.max_user_namespaces = 0"
    assert [setting.place for setting in of(Setting, text)] == [Place.HOST, Place.CONTAINER]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{CLONE} = 0", f"{CLONE}=0"),
        (f"With {CLONE}=1 it works.", f"{CLONE}=1; the reporter says that it helps"),
        (f"Docker requires {CLONE}=1", f"{CLONE}=1; named as what it takes"),
        ("## In the container\n\nuser.max_ipc_namespaces = 0", "user.max_ipc_namespaces=0 (in a container)"),
    ],
)
def test_a_setting_is_shown_with_what_is_said_of_it(text: str, words: str) -> None:
    assert [str(setting) for setting in of(Setting, text)] == [words]


@pytest.mark.parametrize("shape", ["{}", "```\n{}```"])
def test_what_boxlite_advises_was_done_by_nobody(shape: str) -> None:
    text = (
        "2026-11-26T02:51:52.465873Z ERROR boxlite::jailer::sandbox::bwrap: Sandbox preflight failed: x.\n"
        "bwrap --unshare-user failed (system bwrap at bwrap)\n"
        "bwrap stderr: bwrap: No permissions to create a new namespace, likely because\n"
        "clone(CLONE_NEWUSER) errno: 1 (Operation not permitted (os error 1))\n"
        "\n"
        f"Cause: Unprivileged user namespaces disabled ({CLONE}=0).\n"
        "\n"
        f"Fix: sudo sysctl -w {CLONE}=1\n"
        f"  # Persist: echo '{CLONE}=1' | sudo tee /etc/sysctl.d/99-boxlite-userns.conf\n"
        "To skip the sandbox (development only): SecurityOptions::disabled()\n"
    )
    report = read(shape.format(text).encode())
    # boxlite read the value that it blames.
    assert settings(report) == [f"holds {CLONE}=0"]
    assert READ["commands"](report) == []
    assert report.unread == ()
    boxlite, bubblewrap = Speaker.BOXLITE, Speaker.BUBBLEWRAP
    assert READ["speakers"](report)[::2] == [boxlite, boxlite, bubblewrap, boxlite, boxlite]


@pytest.mark.parametrize(
    "text",
    [
        'apparmor="DENIED" operation="capable" class="cap" comm="bwrap" capability=21  capname="sys_admin"',
        'Mar 11 15:52:01 host kernel: audit: type=1400 audit(1741951343.852:641): apparmor="DENIED" '
        'operation="capable" comm="bwrap" capability=21  capname="sys_admin"',
        "type=AVC msg=audit(11/26/2026 04:00:00.123:105) : apparmor=DENIED operation=capable class=cap "
        "profile=unprivileged_userns pid=7 comm=bwrap capability=sys_admin  capname=sys_admin",
        r"apparmor=\"DENIED\" operation=\"capable\" comm=\"bwrap\" capability=21",
        'audit: type=1400 apparmor="DENIED" operation="capable"\n  profile="p" comm="bwrap"\n  capability=21',
        '```\n[ 1.5] audit: type=1400 apparmor="DENIED" oper\nation="capable" comm="bwrap" capability=21\n```',
        'I see `apparmor="DENIED" operation="capable" comm="bwrap" capability=21` in dmesg',
        # The same many times is one statement.
        "\n".join(
            f'apparmor="DENIED" operation="capable" pid={pid} comm="bwrap" capability=21' for pid in range(50)
        ),
    ],
    ids=["raw", "journal", "ausearch -i", "escaped", "wrapped", "wrapped in a word", "in a sentence", "many"],
)
def test_audit_lines_of_apparmor(text: str) -> None:
    [line] = of(AuditLine, text)
    fields = {"apparmor": "DENIED", "operation": "capable", "comm": "bwrap", "capability": "21"}
    assert fields.items() <= line.fields.items()


def test_a_value_with_spaces_is_whole_where_nothing_is_quoted() -> None:
    text = "type=AVC : apparmor=DENIED operation=open info=Failed name lookup - disconnected path error=-13"
    [line] = of(AuditLine, text)
    assert (line.fields["info"], line.fields["error"]) == ("Failed name lookup - disconnected path", "-13")


def test_audit_lines_of_selinux() -> None:
    text = (
        'type=AVC msg=audit(1795:1): avc:  denied  { create } for  pid=1 comm="bwrap" scontext=u:r:t:s0'
        " tcontext=user_u:user_r:user_t:s0 tclass=user_namespace permissive=0\n"
        'type=AVC msg=audit(1795:2): avc:  denied  { mounton } for  pid=1 comm="bwrap" tclass=dir permissive=0'
    )
    assert [(line.fields["avc"], line.fields["tclass"]) for line in of(AuditLine, text)] == [
        ("create", "user_namespace"),
        ("mounton", "dir"),
    ]


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
    [words] = of(Words, text)
    assert (words.step, words.errno, words.quote.number) == message
