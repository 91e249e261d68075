# ruff: noqa: E501
"""Failures in bug reports: audit lines, exit statuses, error messages, and the tests that failed."""

from collections.abc import Sequence

import pytest

from lab.repro.report import AuditLine, Command, Ended, NamedTest, Speaker, Words
from tests.builders.report_texts import of

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
        ("Process: 7 ExecStart=/bin/x (code=exited, status=1/FAILURE)", [(1, None)]),
        ("aa-status 2>/dev/null", []),
        ("the server answers with status 200 OK", []),
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
        ("KVM is available but access is denied", None, Speaker.OTHER),
        ("boxlite: KVM is available but access is denied", None, Speaker.BOXLITE),
        ("INFO: /dev/kvm does not exist, says kvm-ok for boxlite", None, Speaker.OTHER),
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


@pytest.mark.parametrize(
    ("line", "step", "errno", "text"),
    [
        (
            '"bwrap: setting up uid map: Permission denied" on ubuntu',
            "uid-map",
            "EACCES",
            "setting up uid map: Permission denied",
        ),
        ("failure (bwrap: Failed RTM_NEWADDR) causes all", "capability", None, "Failed RTM_NEWADDR"),
        (
            "E: child exited: bwrap: setting up uid map: Permission denied",
            "uid-map",
            "EACCES",
            "setting up uid map: Permission denied",
        ),
        (
            "I get `fork/exec /proc/self/exe: no space left on device` at once",
            "namespace",
            "ENOSPC",
            "fork/exec /proc/self/exe: no space left on device",
        ),
        (
            "FATA[0000] fork/exec /proc/self/exe: operation not permitted",
            "namespace",
            "EPERM",
            "fork/exec /proc/self/exe: operation not permitted",
        ),
        (
            "clone(child_stack=NULL, flags=CLONE_NEWUSER|SIGCHLD) = -1 ENOSPC (No space left on device)",
            "namespace",
            "ENOSPC",
            "clone(child_stack=NULL, flags=CLONE_NEWUSER|SIGCHLD) = -1 ENOSPC",
        ),
        (
            "ERROR: Could not access KVM kernel module: Permission denied",
            "kvm",
            "EACCES",
            "ERROR: Could not access KVM kernel module: Permission denied",
        ),
        ("Error creating the Kvm object: Error(13)", "kvm", "EACCES", "creating the Kvm object: Error(13)"),
        ("Could not boot the VM: VmBoot(KvmNew(Error(13)))", "kvm", "EACCES", "KvmNew(Error(13)"),
        (
            "kvm: Could not access KVM kernel module: Keine Berechtigung",
            "kvm",
            "EACCES",
            "kvm: Could not access KVM kernel module: Keine Berechtigung",
        ),
        ("errno = Operation not permitted is all that it says", None, None, None),
        (
            "/usr/libexec/qemu-kvm: Permission denied",
            "exec",
            "EACCES",
            "/usr/libexec/qemu-kvm: Permission denied",
        ),
    ],
)
def test_a_message_is_found_anywhere_in_a_line(
    line: str, step: str | None, errno: str | None, text: str | None
) -> None:
    messages = of(Words, line)
    assert [(each.step, each.errno, each.text) for each in messages] == (
        [] if text is None else [(step, errno, text)]
    )


def test_the_error_of_a_chain_may_be_on_the_next_line() -> None:
    [message] = of(
        Words, "```\nCaused by:\n    3: failed to open /dev/kvm\n    4: Permission denied (os error 13)\n```"
    )
    assert (message.step, message.errno, message.quote.number) == ("kvm", "EACCES", 3)


@pytest.mark.parametrize(
    "text",
    [
        "# bwrap error again",
        "- firejail 0.9.44.8-2 (the latest version available)",
        "sysctl kernel.unprivileged_userns_clone=1 no working",
        "bwrap then fails",
        "```\nRUN apk add \\\n  make \\\n  podman \\\n  curl\n```",
        "> /sandbox",
    ],
)
def test_a_title_and_a_sentence_are_no_commands(text: str) -> None:
    assert of(Command, text) == []


def test_the_error_of_a_python_traceback_belongs_to_the_call_above_it() -> None:
    text = """```
  File "<string>", line 1, in <module>
    import os; os.unshare(os.CLONE_NEWUSER)
               ~~~~~~~~~~^^^^^^^^^^^^^^^^^^
PermissionError: [Errno 1] Operation not permitted
```"""
    [message] = of(Words, text)
    assert (message.step, message.errno, message.quote.number) == ("namespace", "EPERM", 3)
