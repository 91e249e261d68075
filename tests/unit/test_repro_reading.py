# ruff: noqa: E501
"""Reading bug reports: each kind of fact in the forms in which people paste it."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.repro.reading import forms, read
from lab.repro.report import (
    AuditLine,
    Boxlite,
    Command,
    Ended,
    Kernel,
    LogLine,
    Mood,
    NamedTest,
    Place,
    Probed,
    Program,
    Report,
    Setting,
    Speaker,
    Statement,
    System,
    Words,
)
from tests.unit.report_examples import FAMILY, KILLED, MANY_PROCESSES, MOVED, PROBE, TWICE

CLONE = "kernel.unprivileged_userns_clone"
RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"


def of[S: Statement](kind: type[S], text: str) -> list[S]:
    return list(read(text.encode()).of(kind))


def systems(text: str) -> list[tuple[str, str | None]]:
    return [(each.id, each.version) for each in of(System, text) if not each.inferred]


def settings(text: str) -> list[tuple[str, str | None, Mood, bool | None]]:
    return [(each.name, each.value, each.mood, each.helped) for each in of(Setting, text)]


def holds(name: str, value: str) -> tuple[str, str | None, Mood, bool | None]:
    return name, value, Mood.HOLDS, None


def tried(name: str, value: str | None, helped: bool | None) -> tuple[str, str | None, Mood, bool | None]:
    return name, value, Mood.TRIED, helped


# -- whole reports


def test_a_flattened_page_whose_text_comes_twice_is_read_once() -> None:
    report = read(TWICE.encode())
    assert [each.name for each in report.of(NamedTest)] == [
        "jailer_enabled_box_starts_and_executes",
        "jailer_creates_isolated_mount_namespace",
    ]
    assert [(each.id, each.version) for each in report.of(System)] == [("ubuntu", "24.04")]
    assert [each.release for each in report.of(Kernel)] == ["7.0.0-1004-aws"]
    assert [each.installed_by for each in report.of(Boxlite)] == ["source"]
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
    assert [each.version for each in report.of(Boxlite)] == ["0.5.13"]
    assert [each.release for each in report.of(Kernel)] == ["6.17.9-76061709-generic"]
    assert [(each.name, each.version) for each in report.of(Program)] == [("python", "3.14.2")]
    assert [each.module for each in report.of(LogLine)] == [
        "boxlite::jailer::command",
        "boxlite::vmm::controller::shim",
    ]
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
    assert settings(MOVED) == [tried("firejail --ignore=apparmor", None, True)]


# -- kinds of fact


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("OS: Ubuntu 24.04.2 LTS", [("ubuntu", "24.04")]),
        ("I run Ubuntu Noble here", [("ubuntu", "24.04")]),
        ("Debian GNU/Linux 12 (bookworm)", [("debian", "12")]),
        ("Debian 12.5", [("debian", "12")]),
        ("fails on debian trixie", [("debian", "13")]),
        ("Fedora Linux 43 (Workstation Edition)", [("fedora", "43")]),
        ("Operating System: Rocky Linux 9.4 (Blue Onyx)", [("rocky", "9.4")]),
        ("Linux Mint 22.1", [("linuxmint", "22.1")]),
        ("Arch Linux, rolling", [("arch", None)]),
        ("NixOS 24.11", [("nixos", "24.11")]),
        ("### Operating system\n\nUbuntu 22.04\n\n### What happened\n\nnothing", [("ubuntu", "22.04")]),
        ("| OS | Version |\n|---|---|\n| host | openSUSE Tumbleweed |", [("opensuse-tumbleweed", None)]),
        ("WSL2, Ubuntu 24.04.1 LTS on Windows 11", [("ubuntu", "24.04")]),
        ("Linux Mint 22 (Wilma), based on Ubuntu 24.04 noble", [("linuxmint", "22")]),
        # Not the host, or no system.
        ("Fedora 43 fails. On my other machine (Ubuntu 24.04) it works.", [("fedora", "43")]),
        ('box = SimpleBox(image="alpine:latest")', []),
        ("works on Debian 12", []),
        ("see https://packages.ubuntu.com/noble/bubblewrap", []),
        ("Arch: x86_64", []),
        ("bwrap: x. On e.g. debian this can be enabled with 'sysctl kernel.y=1'.", []),
        ("ships in apparmor 4 (Ubuntu 24+ default)", []),
        ("<!-- for example: Ubuntu 24.04 -->\nsomething", []),
    ],
)
def test_distributions(text: str, found: list[tuple[str, str | None]]) -> None:
    assert systems(text) == found


def test_a_pasted_os_release_names_a_distribution_that_the_table_lacks() -> None:
    text = '```\nPRETTY_NAME="Nemo 7"\nNAME="Nemo"\nVERSION_ID="7"\nID=nemo\nID_LIKE="ubuntu debian"\n```'
    [system] = of(System, text)
    assert (system.id, system.version, system.name, system.like) == ("nemo", "7", "Nemo 7", "ubuntu")
    assert read(text.encode()).unread == ()


@pytest.mark.parametrize(
    ("text", "host", "container"),
    [
        ("Debian 12 container on an Ubuntu 24.04 host", "ubuntu", "debian"),
        ("Host: Fedora 43\n\nContainer: Debian 13", "fedora", "debian"),
        ("Ubuntu 22.04, inside docker (debian:bookworm-slim image)", "ubuntu", "debian"),
        ("Ubuntu 22.04\n\n    docker run --rm -it python:3.12-slim-bookworm bash", "ubuntu", "debian"),
    ],
)
def test_a_container_is_told_from_its_host(text: str, host: str, container: str) -> None:
    found = {each.place: each.id for each in of(System, text)}
    assert found == {Place.HOST: host, Place.CONTAINER: container}


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("Kernel: 6.8.0-45-generic", "6.8.0-45-generic"),
        ("Linux box 6.12.57+deb13-amd64 #1 SMP PREEMPT_DYNAMIC Debian", "6.12.57+deb13-amd64"),
        ("running kernel 6.17 here", "6.17"),
        ("kernel version 6.11.4-301.fc41.x86_64", "6.11.4-301.fc41.x86_64"),
        ("### Kernel\n\n6.6.87.2-microsoft-standard-WSL2", "6.6.87.2-microsoft-standard-WSL2"),
    ],
)
def test_kernels(text: str, release: str) -> None:
    assert [each.release for each in of(Kernel, text)] == [release]


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("bubblewrap version is 0.9.0-1ubuntu0.1", "bubblewrap", "0.9.0-1ubuntu0.1"),
        ("`bwrap --version`: bubblewrap 0.11.0", "bubblewrap", "0.11.0"),
        ("AppArmor 4.0.1", "apparmor", "4.0.1"),
        ("Docker version 28.0.1, build x", "docker", "28.0.1"),
    ],
)
def test_versions_of_programs(text: str, name: str, version: str) -> None:
    assert [(each.name, each.version) for each in of(Program, text)] == [(name, version)]


def test_an_images_tag_and_a_least_version_are_no_program() -> None:
    assert of(Program, "docker run python:3.12 bash; apparmor ≥ 4.0") == []


@pytest.mark.parametrize("text", ["kernel 6.7+ has it", "needs kernel 5.19", "kernel >= 6.1"])
def test_a_kernel_that_something_needs_is_not_the_one_that_runs(text: str) -> None:
    assert of(Kernel, text) == []


@pytest.mark.parametrize(
    ("text", "version", "how"),
    [
        ("boxlite 0.10.8", "0.10.8", None),
        ("boxlite==0.9.5", "0.9.5", None),
        ("- boxlite version: `0.10.2`", "0.10.2", None),
        ("### BoxLite version\n\n0.10.7", "0.10.7", None),
        ("```\n$ pip show boxlite\nName: boxlite\nVersion: 0.10.3\n```", "0.10.3", "pip"),
        ("$ pip install boxlite", None, "pip"),
        ("npm install @boxlite-ai/boxlite@0.10.0", "0.10.0", None),
        ("$ cargo install boxlite-cli", None, "cli"),
        ('$ python3 -c "import boxlite; print(boxlite.__version__)"\n0.10.8', "0.10.8", None),
        ("boxlite: 0.10.7 (pip)", "0.10.7", "pip"),
        ("boxlite 0.10.7 installed from source", "0.10.7", "source"),
        ("boxlite-0.10.8-cp312-abi3-manylinux_2_28_x86_64.whl", "0.10.8", None),
    ],
)
def test_versions_of_boxlite(text: str, version: str | None, how: str | None) -> None:
    found = of(Boxlite, text)
    assert version in [each.version for each in found]
    assert how is None or how in [each.installed_by for each in found]


@pytest.mark.parametrize(
    "text",
    [
        f"{CLONE} = 0",
        f"{CLONE}=0",
        f"{CLONE}: 0",
        f"`{CLONE}` is `0`",
        f"| {CLONE} | 0 |\n|-|-|\n| a | b |",
        "$ cat /proc/sys/kernel/unprivileged_userns_clone\n0",
        "/proc/sys/kernel/unprivileged_userns_clone:0",
        f"```\n$ sysctl {CLONE}\n{CLONE} = 0\n```",
        f"```\n$ sysctl -n {CLONE}\n0\n```",
        f"the host has {CLONE} set to 0",
        "unprivileged_userns_clone=0",
    ],
)
def test_a_sysctl_that_holds_in_every_form(text: str) -> None:
    assert settings(text) == [holds(CLONE, "0")]


def test_a_container_has_its_hosts_kernel() -> None:
    text = "## In the container\n\nkernel.unprivileged_userns_clone = 1\n\nuser.max_user_namespaces = 0"
    assert [each.place for each in of(Setting, text)] == [Place.HOST, Place.CONTAINER]


def test_prompts_of_other_shells_are_known() -> None:
    text = "```\n❯ uname -r\n> sysctl -a\n[me@host dir]$ ls\nroot@host:~# id\n# a comment on this\n```"
    assert [each.text for each in of(Command, text)] == ["uname -r", "sysctl -a", "ls", "id"]


def test_what_boxlite_advises_was_done_by_nobody() -> None:
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
    for shape in (text, f"```\n{text}```"):
        # boxlite read the value that it blames.
        assert settings(shape) == [holds(CLONE, "0")]
        assert of(Command, shape) == []
        assert read(shape.encode()).unread == ()
        speakers = [each.speaker for each in of(Words, shape)]
        assert speakers == [
            Speaker.BOXLITE,
            Speaker.BOXLITE,
            Speaker.BUBBLEWRAP,
            Speaker.BOXLITE,
            Speaker.BOXLITE,
        ]
    assert settings(f"Fix: sudo sysctl -w {CLONE}=1 and it works") == [tried(CLONE, "1", True)]


def test_several_values_are_asked_for_at_once() -> None:
    text = "```\n$ cat /proc/sys/kernel/unprivileged_userns_clone /proc/sys/user/max_user_namespaces\n1\n15000\n```"
    assert settings(text) == [holds(CLONE, "1"), holds("user.max_user_namespaces", "15000")]


@pytest.mark.parametrize(
    ("text", "helped"),
    [
        (f"sudo sysctl -w {RESTRICT}=0", None),
        ("echo 0 | sudo tee /proc/sys/kernel/apparmor_restrict_unprivileged_userns", None),
        ("sudo sh -c 'echo 0 > /proc/sys/kernel/apparmor_restrict_unprivileged_userns'", None),
        (f"With {RESTRICT}=0 it works at once.", True),
        (f"Setting {RESTRICT}=0 does not help.", False),
        (f"I tried {RESTRICT}=0 but it still fails", False),
        (f"I tried:\n\n```\n$ sudo sysctl -w {RESTRICT}=0\n```\n\nand everything works now.", True),
        (f"```\n$ sudo sysctl -w {RESTRICT}=0\n{RESTRICT} = 0\n```\n\nNo change.", False),
        (f"{RESTRICT}=0 fixes it", True),
        (f"sysctl {RESTRICT}=0 no working", False),
        (f"I tried {RESTRICT}=0, which should help", None),
        (f"These settings do not help:\n\n- {RESTRICT}=0", False),
    ],
)
def test_what_was_tried_is_told_from_what_holds(text: str, helped: bool | None) -> None:
    assert settings(text) == [tried(RESTRICT, "0", helped)]


def test_what_is_said_of_the_next_step_is_not_said_of_this_one() -> None:
    text = (
        f"After `sysctl -w {CLONE}=1` the error changes to\nbwrap: Creating new namespace failed: x (ENOSPC)\n"
        "After also running `sysctl -w user.max_user_namespaces=15000`, boxes start."
    )
    assert settings(text) == [tried(CLONE, "1", None), tried("user.max_user_namespaces", "15000", True)]


@pytest.mark.parametrize(
    ("text", "step", "helped"),
    [
        ("With --privileged it works.", "--privileged", True),
        ("I ran `sudo modprobe kvm_intel` but no luck", "modprobe kvm_intel", False),
        ("`setenforce 0` makes it work. As root I did not try.", "setenforce 0", True),
        ("1. `sudo usermod -aG kvm me` and a new login - no difference", "usermod -aG kvm me", False),
    ],
)
def test_steps_that_are_no_sysctl(text: str, step: str, helped: bool) -> None:
    assert settings(text) == [tried(step, None, helped)]


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("32768 60999", "32768 60999"),
        ("32768\t60999", "32768 60999"),
        ("|/bin/false", "|/bin/false"),
        ("-1", "-1"),
    ],
)
def test_lists_of_numbers_and_words_are_values(value: str, read_as: str) -> None:
    assert settings(f"    net.ipv4.some_range = {value}\n") == [holds("net.ipv4.some_range", read_as)]


def test_a_value_that_holds_stays_beside_the_one_that_was_tried() -> None:
    text = f"- {RESTRICT} = 1\n\nAfter setting {RESTRICT}=0 it works."
    assert settings(text) == [holds(RESTRICT, "1"), tried(RESTRICT, "0", True)]


def test_the_sysctl_that_bubblewrap_advises_was_set_by_nobody() -> None:
    said = f"bwrap: No permissions to creating new namespace. ... this can be enabled with 'sysctl {CLONE}=1'."
    assert settings(said) == []


DENIED = {"apparmor": "DENIED", "operation": "capable", "comm": "bwrap", "capability": "21"}


@pytest.mark.parametrize(
    "text",
    [
        'apparmor="DENIED" operation="capable" class="cap" profile="p" comm="bwrap" capability=21  capname="sys_admin"',
        'Mar 11 15:52:01 host kernel: audit: type=1400 audit(1741951343.852:641): apparmor="DENIED" '
        'operation="capable" comm="bwrap" capability=21  capname="sys_admin"',
        "type=AVC msg=audit(11/26/2026 04:00:00.123:105) : apparmor=DENIED operation=capable class=cap "
        "profile=unprivileged_userns pid=7 comm=bwrap capability=sys_admin  capname=sys_admin",
        r"apparmor=\"DENIED\" operation=\"capable\" comm=\"bwrap\" capability=21",
        'audit: type=1400 apparmor="DENIED" operation="capable"\n  profile="p" comm="bwrap"\n  capability=21',
        '```\n[ 1.5] audit: type=1400 apparmor="DENIED" oper\nation="capable" comm="bwrap" capability=21\n```',
        'I see `apparmor="DENIED" operation="capable" comm="bwrap" capability=21` in dmesg',
    ],
    ids=["raw", "journal", "ausearch -i", "escaped", "wrapped", "wrapped in a word", "in a sentence"],
)
def test_audit_lines_of_apparmor(text: str) -> None:
    [line] = of(AuditLine, text)
    assert DENIED.items() <= line.fields.items()


def test_audit_lines_of_selinux() -> None:
    text = (
        'type=AVC msg=audit(1795:1): avc:  denied  { create } for  pid=1 comm="bwrap" scontext=user_u:user_r:user_t:s0'
        " tcontext=user_u:user_r:user_t:s0 tclass=user_namespace permissive=0\n"
        'type=AVC msg=audit(1795:2): avc:  denied  { mounton } for  pid=1 comm="bwrap" path="/" tclass=dir permissive=0'
    )
    assert [(line.fields["avc"], line.fields["tclass"]) for line in of(AuditLine, text)] == [
        ("create", "user_namespace"),
        ("mounton", "dir"),
    ]


def test_the_same_denial_many_times_is_one_statement() -> None:
    text = "\n".join(f'apparmor="DENIED" operation="capable" pid={pid} comm="bwrap"' for pid in range(50))
    assert len(of(AuditLine, text)) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("exited with code 139", [(139, "SIGSEGV")]),
        ("exit status: 1", [(1, None)]),
        ("Bad system call (core dumped)", [(159, "SIGSYS")]),
        ("the shim is killed by SIGKILL", [(137, "SIGKILL")]),
        ("the box died with status 159.", [(159, "SIGSYS")]),
        ("Main process exited, code=dumped, status=31/SYS", [(159, "SIGSYS")]),
    ],
)
def test_exit_statuses_and_signals(text: str, found: Sequence[tuple[int, str | None]]) -> None:
    assert [(each.status, each.signal) for each in of(Ended, text)] == list(found)


@pytest.mark.parametrize(
    ("text", "errno", "speaker"),
    [
        ("bwrap: Can't mount on symlink destination /x", None, Speaker.BUBBLEWRAP),
        ("bwrap: setting up uid map: Permission denied", "EACCES", Speaker.BUBBLEWRAP),
        ("unshare: unshare failed: No space left on device", "ENOSPC", Speaker.OTHER),
        ("KVM is available but access is denied", None, Speaker.BOXLITE),
        ('Err(Os { code: 11, kind: WouldBlock, message: "x" })', "EAGAIN", Speaker.OTHER),
        ("[ 12.5] boxlite-shim[7]: segfault at 0", None, Speaker.KERNEL),
    ],
)
def test_error_messages(text: str, errno: str | None, speaker: Speaker) -> None:
    assert [(each.errno, each.speaker) for each in of(Words, text)] == [(errno, speaker)]


def test_a_sentence_about_a_command_gives_the_command() -> None:
    [command] = of(Command, "bwrap --unshare-user --bind / / true succeeds alone, but the rest fails.")
    assert command.text == "bwrap --unshare-user --bind / / true"
    assert of(Command, "make sure that it runs") == []


def test_a_test_that_passes_does_not_fail() -> None:
    assert of(NamedTest, "jailer_disabled_box_starts_and_executes passes") == []
    [test] = of(NamedTest, "test jailer::another_one ... FAILED")
    assert (test.name, test.known) == ("another_one", False) or test.name == "jailer::another_one"


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


# -- forms


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
        (Boxlite, 3),
        (Setting, 6),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the report is empty"),
        (b" \n\t\n", "the report is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG picture, not text"),
        (b"%PDF-1.7", "a PDF document, not text"),
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


# -- hostile text


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
    assert (forms.MOST_BYTES, forms.MOST_CHARACTERS, forms.MOST_LINES) == (8 * 2**20, 250_000, 10_000)


# -- the output of the probe script


def test_the_output_of_the_probe_script_is_read_exactly_and_by_nothing_else() -> None:
    report = read(f"No box starts on it.\n\n```\n{PROBE}```\n\nboxlite 0.10.8\n".encode())
    [probed] = report.of(Probed)
    assert probed.host is not None
    assert not probed.host.probes.unshare_user.worked
    [system] = report.of(System)
    assert (system.id, system.version, system.name) == ("debian", "13", "Debian GNU/Linux 13 (trixie)")
    assert (system.quote.number, system.quote.text) == (5, "1 os.id: debian")
    assert [each.release for each in report.of(Kernel)] == ["6.12.57+deb13-amd64"]
    assert ("user.max_user_namespaces", "0") in [(each.name, each.value) for each in report.of(Setting)]
    assert list(report.of(Words)) == []
    assert [each.version for each in report.of(Boxlite)] == ["0.10.8"]
    assert report.unread == ()


def test_a_quoted_output_of_the_probe_script_is_read_too() -> None:
    quoted = "".join(f"> {line}\n" for line in PROBE.splitlines())
    [probed] = of(Probed, f"The reporter sent:\n\n{quoted}\nThanks.")
    assert probed.host is not None


def test_of_a_damaged_output_nothing_is_read() -> None:
    lines = PROBE.splitlines()
    report = read("\n".join([*lines[:20], *lines[21:]]).encode())
    [probed] = report.statements
    assert isinstance(probed, Probed)
    assert (probed.host, "line 20 is missing" in probed.damaged) == (None, True)


def test_what_follows_an_output_that_was_cut_off_is_read() -> None:
    report = read("\n".join([*PROBE.splitlines()[:20], "", "That is all. boxlite 0.10.8"]).encode())
    assert [type(each) for each in report.statements] == [Probed, Boxlite]
