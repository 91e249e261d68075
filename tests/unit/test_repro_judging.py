# ruff: noqa: E501
"""What the text of a report alone shows: causes, contradictions and warnings."""

import pytest

from lab import causes
from lab.record import Confidence
from lab.repro.judging import Judged, hints, judge
from lab.repro.reading import read
from tests.unit.report_examples import FAMILY, KILLED, MANY_PROCESSES, MOVED, PROBE, TWICE

RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"
NOCAPS = "apparmor-userns-nocaps"
LINE = 'apparmor="DENIED" operation="capable" profile="unprivileged_userns" comm="{}" capability=21 capname="sys_admin"'


def judged(text: str) -> Judged:
    return judge(read(text.encode()))


def found(text: str) -> list[tuple[str, Confidence, str]]:
    return [(each.name, each.confidence, each.program) for each in judged(text).findings]


def remarks(text: str) -> str:
    return "\n".join(each.text for each in judged(text).remarks)


def test_every_hint_is_about_a_known_cause() -> None:
    assert set(hints.known()) <= set(causes.known())


def test_an_audit_line_that_names_the_program_proves_the_cause() -> None:
    assert found(LINE.format("bwrap")) == [(NOCAPS, Confidence.PROVED, "bwrap")]


@pytest.mark.parametrize("program", ["tokio-rt-worker", "unshare"])
def test_an_audit_line_that_ubuntu_also_logs_where_bubblewrap_works_proves_nothing(program: str) -> None:
    [finding] = judged(LINE.format(program)).findings
    assert (finding.name, finding.confidence, finding.program) == (NOCAPS, Confidence.LIKELY, "bwrap")
    assert "names no program" not in finding.why


def test_an_audit_line_that_names_no_program_proves_nothing() -> None:
    [finding] = judged(LINE.replace('comm="{}" ', "")).findings
    assert (finding.name, finding.confidence) == (NOCAPS, Confidence.LIKELY)
    assert "names no program" in finding.why


def test_a_line_that_only_tells_of_the_transition_proves_nothing() -> None:
    text = (
        'apparmor="AUDIT" operation="userns_create" info="Userns create - transitioning profile" '
        'profile="unconfined" comm="some-desktop" target="unprivileged_userns"'
    )
    assert found(text) == [(NOCAPS, Confidence.LIKELY, "some-desktop")]


def test_another_program_is_not_cured_by_a_profile_for_bubblewrap() -> None:
    [finding] = judged(MOVED).findings
    assert (finding.name, finding.confidence, finding.program) == (NOCAPS, Confidence.PROVED, "some-desktop")
    assert [each.number for each in finding.quotes] == [3, 4]
    assert "does not cure some-desktop" in remarks(MOVED)


def test_the_sysctl_and_two_messages_of_one_missing_capability_make_it_likely() -> None:
    [finding] = judged(FAMILY).findings
    assert (finding.name, finding.confidence) == (NOCAPS, Confidence.LIKELY)
    assert [each.number for each in finding.quotes] == [6, 10, 12]
    assert "different messages come from that one cause" in finding.why
    # The uid map is denied with EACCES for the missing attach_disconnected.
    assert "capability" not in finding.why


def test_a_sysctl_that_cures_tells_the_cause() -> None:
    assert found(f"With {RESTRICT}=0 it works at once.") == [(NOCAPS, Confidence.LIKELY, "bwrap")]


@pytest.mark.parametrize(
    "text",
    [
        f"The box starts to fail although I set {RESTRICT}=0 before",
        f"boxlite run fails even though I set {RESTRICT}=0; podman works.",
    ],
)
def test_a_failure_although_the_sysctl_was_set_is_no_cure(text: str) -> None:
    assert found(text) == []


def test_what_boxlite_read_and_tried_itself_is_evidence() -> None:
    text = (
        "clone(CLONE_NEWUSER) errno: 1 (Operation not permitted (os error 1))\n\n"
        "Cause: Unprivileged user namespaces disabled (kernel.unprivileged_userns_clone=0)."
    )
    [finding] = judged(text).findings
    assert (finding.name, finding.confidence) == ("userns-sysctl", Confidence.LIKELY)
    assert "`unshare -U` fails with EPERM" in finding.why


def test_the_output_of_the_probe_script_proves_a_cause() -> None:
    [finding] = judged(PROBE).findings
    assert (finding.name, finding.confidence) == ("userns-limit", Confidence.PROVED)
    assert 1 in [each.number for each in finding.quotes]


def test_a_damaged_output_of_the_probe_script_is_asked_for_again() -> None:
    damaged = "\n".join(PROBE.splitlines()[:30])
    assert judged(damaged).findings == ()
    assert "Of the probe's output nothing is used" in remarks(damaged)


def test_the_sysctl_alone_shows_nothing() -> None:
    # Every Ubuntu has it.
    assert found(f"{RESTRICT} = 1") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "masked-proc"),
        ("ls: cannot access '/dev/kvm': No such file or directory", "kvm-absent"),
        ("boxlite: /dev/kvm exists but access denied (permissions)", "kvm-denied"),
        ("KVM is available but access is denied", "kvm-denied"),
        ("bwrap: setuid use of bubblewrap is not supported", "bwrap-setuid"),
        ("bwrap: Can't mount on symlink destination /x", "mount-symlink"),
        ("kernel.unprivileged_userns_clone = 0", "userns-sysctl"),
        ("user.max_user_namespaces = 0", "userns-limit"),
        (
            "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
            "userns-limit",
        ),
    ],
)
def test_a_text_without_an_audit_line_makes_a_cause_likely_at_most(text: str, name: str) -> None:
    [finding] = judged(text).findings
    assert (finding.name, finding.confidence) == (name, Confidence.LIKELY)
    assert [each.number for each in finding.quotes] == [1]


def test_selinux_denying_the_namespace_is_proved_by_its_line() -> None:
    line = 'avc:  denied  { create } for pid=1 comm="bwrap" scontext=u tcontext=u tclass=user_namespace permissive=0'
    assert found(line) == [("selinux-userns-deny", Confidence.PROVED, "bwrap")]


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("Creating new namespace failed: Permission denied", "EACCES: a security module"),
        (
            "No permissions to create a new namespace, likely because the kernel does not allow",
            "EPERM has several",
        ),
    ],
)
def test_a_message_with_several_causes_shows_none(message: str, named: str) -> None:
    assert found(f"bwrap: {message}") == []
    assert named in remarks(f"bwrap: {message}")


def test_sigsys_is_the_programs_own_filter_and_not_the_host() -> None:
    assert "159 = 128 + 31, SIGSYS: a seccomp filter that the program set up itself" in remarks(KILLED)
    assert "bubblewrap worked: it started the shim" in remarks(KILLED)
    assert found(KILLED) == [("shim-seccomp", Confidence.LIKELY, "bwrap")]


def test_the_same_remark_on_several_lines_is_one() -> None:
    text = "bwrap: Creating new namespace failed: Permission denied\n\nbwrap: Creating new namespace failed (2): Permission denied"
    [remark] = judged(text).remarks
    assert [each.number for each in remark.quotes] == [1, 3]


def test_a_hostile_report_is_judged_in_bounds() -> None:
    lines = [f'apparmor="DENIED" operation="userns_create" profile="p{i}" comm="prog{i}"' for i in range(300)]
    lines += [f"bwrap: message {i}: Permission denied\nkernel.a{i} = 0\nUbuntu 24.{i:02}" for i in range(99)]
    result = judged("\n".join(lines))
    assert len(result.findings) <= 10
    assert len(result.remarks) <= 20


def test_eagain_is_a_limit_on_processes_and_no_apparmor() -> None:
    assert found(MANY_PROCESSES) == [("nproc-limit", Confidence.LIKELY, "bwrap")]
    assert remarks(MANY_PROCESSES).startswith("EAGAIN: a limit on the user's processes (RLIMIT_NPROC)")


def test_a_setting_that_was_tried_in_vain_does_not_hold() -> None:
    assert found("I tried kernel.unprivileged_userns_clone=0 but it still fails") == []


def test_a_reporter_who_says_that_the_sysctl_does_not_help_is_contradicted_by_the_audit_line() -> None:
    said = [each for each in judged(TWICE).remarks if "does not help" in each.text]
    assert [[quote.number for quote in each.quotes] for each in said] == [[19, 10]]
    assert "started inside a namespace that was made before the change" in said[0].text


def test_words_that_name_a_sysctl_which_the_kernel_lacks_prove_nothing() -> None:
    said = "bwrap: No permissions to create a new namespace, likely because the kernel does not allow non-privileged user namespaces."
    assert "have no such sysctl" in remarks(f"Fedora 43\n\n{said}")
    assert "have no such sysctl" not in remarks(f"Debian 13\n\n{said}")
    assert "have no such sysctl" not in remarks(f"Linux Mint 22\n\n{said}")


def test_a_kernel_that_the_named_release_did_not_bring_is_remarked() -> None:
    assert "released with kernel 6.8, and this kernel is 7.0" in remarks(TWICE)
    assert "released with" not in remarks("Ubuntu 24.04, kernel 6.8.0-45-generic")


def test_a_kernel_of_another_distribution_is_remarked() -> None:
    assert "is a kernel of Fedora, not of Debian 13" in remarks("Debian 13, kernel 6.17.4-300.fc43.x86_64")
    assert "Windows (WSL2), not of Ubuntu 24.04" in remarks(
        "Ubuntu 24.04, kernel 5.15.1-microsoft-standard-WSL2"
    )
    assert remarks("Linux Mint 22, kernel 6.8.0-45-generic") == ""


def test_a_finding_quotes_the_settings_and_the_messages_that_show_it() -> None:
    text = (
        "user.max_user_namespaces = 0\n\nbwrap: Creating new namespace failed: x namespaces exceeded (ENOSPC)"
    )
    [finding] = judged(text).findings
    assert (finding.name, [each.number for each in finding.quotes]) == ("userns-limit", [1, 3])


def test_a_boxlite_that_no_index_has_is_remarked() -> None:
    assert "boxlite 0.5.13 is older than 0.9.0" in remarks("boxlite 0.5.13")
    assert remarks("boxlite 0.10.8, before that 0.9.0") == ""


def test_values_that_contradict_each_other_both_stay() -> None:
    text = "user.max_user_namespaces = 0\n\nand later\n\nuser.max_user_namespaces = 15000"
    assert "gives user.max_user_namespaces two values, 0 and 15000" in remarks(text)
    assert "names two systems, Debian 13 and Fedora 43" in remarks("Debian 13\n\nFedora 43")


def test_a_bubblewrap_that_was_not_executed_did_not_make_a_namespace() -> None:
    assert "One start of bubblewrap cannot show both." in remarks(TWICE)


@pytest.mark.parametrize(
    ("text", "cause", "confidence"),
    [
        (
            "boxlite 0.5.13\nRuntimeError: Box 01K failed to start\nExit code: 159 (unknown signal)",
            "shim-seccomp",
            "likely",
        ),
        ("bwrap: Creating new namespace failed: Resource temporarily unavailable", "nproc-limit", "likely"),
        ("bwrap: Unknown option --clearenv", "bwrap-too-old", "likely"),
        (
            "bwrap: Can't mount on symlink destination /etc/ssl/certs/ca-certificates.crt",
            "mount-symlink",
            "likely",
        ),
        (
            'avc:  denied  { mounton } for  pid=9 comm="bwrap" path="/" scontext=staff_u:staff_r:staff_t:s0 '
            "tcontext=system_u:object_r:root_t:s0 tclass=dir permissive=0",
            "selinux-mount-deny",
            "proved",
        ),
        (
            "user.max_pid_namespaces = 0\nbwrap: Creating new namespace failed: nesting depth or "
            "/proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
            "namespace-limit",
            "likely",
        ),
    ],
)
def test_each_of_these_words_tells_one_cause_and_no_other(text: str, cause: str, confidence: str) -> None:
    assert found(text) == [(cause, Confidence(confidence), "bwrap")]
