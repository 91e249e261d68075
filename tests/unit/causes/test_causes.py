import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from lab import causes
from lab.base.errors import LabError
from lab.causes import diagnose_evidence, evidence
from lab.causes.evidence import LOG_BYTES, Evidence, parse_audit, read_evidence
from lab.causes.rule import CAUSES
from lab.probes import NONE_RUN, NOT_RUN
from lab.record import BoxGroups, Confidence, Needs, Outcome, TestResult
from tests.builders import evidence as examples
from tests.builders.evidence import bwrap, gathered
from tests.builders.facts import probe, probed, service_probe

# An example of evidence, its cause, and words of why.
SEEN = [
    ("SERVICE_PRIVATE_DEVICES", "service-without-kvm", "PrivateDevices=yes"),
    ("SERVICE_DEVICE_RULES", "service-without-kvm", "DevicePolicy=closed"),
    ("CONTAINER_WITHOUT_KVM", "container-without-kvm", "in the container of docker there is no /dev/kvm"),
    ("KVM_ABSENT", "kvm-absent", "there is no /dev/kvm"),
    ("KVM_WITHOUT_DRIVER", "kvm-absent", "nothing is behind /dev/kvm"),
    ("KVM_DENIED", "kvm-denied", "EACCES"),
    ("APPARMOR_KVM_DENY", "apparmor-kvm-deny", "/dev/kvm to python3 under profile lab-without-kvm"),
    ("KVM_UNUSABLE", "kvm-unusable", "Inappropriate ioctl"),
    ("SERVICE_STRICT", "service-closes-tmp", "=strict, and making a folder in /tmp fails with EROFS"),
    ("SOCKET_FOLDER", "socket-folder", "/tmp/bl-1001 is owned by uid 0"),
    ("TMP_CLOSED", "socket-folder", "Permission denied: '/tmp/"),
    ("HOME_NOEXEC", "home-noexec", "EACCES"),
    ("BWRAP_EXEC_DENIED", "bwrap-exec-denied", "under lab-without-bwrap: failed to run bwrap"),
    ("BWRAP_EXEC_DENIED_LOGGED", "bwrap-exec-denied", "3c4eaf9215b6/bwrap under profile lab-without-bwrap-a"),
    ("BWRAP_SETUID", "bwrap-setuid", "setuid use of bubblewrap is not supported"),
    ("SERVICE_PROC_SUBSET", "service-hides-proc", "ProcSubset=pid"),
    ("SERVICE_NAMESPACES", "service-restricts-namespaces", "=yes, which denies user mnt pid ipc uts"),
    ("SECCOMP", "seccomp", "unshare(0)"),
    ("USERNS_SYSCTL", "userns-sysctl", "kernel.unprivileged_userns_clone is 0"),
    ("USERNS_LIMIT", "userns-limit", "user.max_user_namespaces is 0"),
    ("APPARMOR_DENY", "apparmor-userns-deny", "profile lab-bwrap-without-userns"),
    ("APPARMOR_DENY_IN_CONTAINER", "apparmor-userns-deny", "under profile containers-default-0.62.2"),
    ("SELINUX_DENY", "selinux-userns-deny", "bwrap in unconfined_u:unconfined_r:unconfined_t"),
    ("NAMESPACE_LIMIT", "namespace-limit", "user.max_pid_namespaces is 0"),
    ("NAMESPACE_LIMIT_OF_MOUNTS", "namespace-limit", "user.max_mnt_namespaces is 0"),
    ("APPARMOR_DISCONNECTED", "apparmor-disconnected", "proc/804/uid_map"),
    ("APPARMOR_NOCAPS", "apparmor-userns-nocaps", "denied sys_admin to bwrap"),
    ("UBUNTU", "apparmor-userns-nocaps", "denied setpcap to bwrap under profile unprivileged_userns"),
    ("UBUNTU_NOT_REPEATED", "apparmor-userns-nocaps", "denied proc/8508/uid_map to bwrap under profile unpriv"),
    ("UBUNTU_WITHOUT_PROFILE", "apparmor-userns-deny", "without a profile"),
    ("SERVICE_CALLS", "service-filters-calls", "lacks mount pivot_root umount2, and mount(NULL)"),
    ("SERVICE_WITHOUT_SECCOMP", "service-filters-calls", "lacks seccomp, and the kernel ended boxlite-shim"),
    ("APPARMOR_MOUNT_DENY", "apparmor-mount-deny", "bwrap a mount under profile lab-bwrap-without"),
    ("APPARMOR_PIVOT_ROOT_DENY", "apparmor-mount-deny", "under profile lab-bwrap-without-pivot-root"),
    ("SELINUX_MOUNT_DENY", "selinux-mount-deny", "unconfined_t:s0-s0:c0.c1023 a mount on /"),
    ("SERVICE_OPENAT2", "service-restricts-suid", "RestrictSUIDSGID=yes, and bubblewrap fails with ENOSYS"),
    ("SERVICE_PROC", "service-masks-proc", "ProtectKernelTunables=yes: bubblewrap can make"),
    ("MASKED_PROC", "masked-proc", "/proc/acpi /proc/kcore"),
    ("SHIM_NOT_EXECUTABLE", "shim-not-executable", "ePoFaMBWTqxA/bin/boxlite-shim has mode 0664"),
    ("BWRAP_TOO_OLD", "bwrap-too-old", "Unknown option --clearenv"),
    ("MOUNT_SYMLINK", "mount-symlink", "symlink destination /etc/ssl/certs/ca-cert"),
    (
        "NOFILE_LIMIT",
        "nofile-limit",
        "at most 256 files open, and the strongest preset sets 1024, and the child",
    ),
    ("VOLUME_SYMLINK", "volume-not-in-sandbox", "'uservol0' not found: /home/tester/volumes-8n7wjqpf/one"),
    ("THREE_VOLUMES", "volumes-exhaust-irqs", "IrqsExhausted"),
    ("CGROUP_NOT_JOINED", "cgroup-not-joined", "of its caller, 0::/system.slice/ssh.service"),
]
# No setting of a host is known that leads to them.
REPORTED = [
    ("SHIM_WROTE_SIGSYS", "shim-seccomp", "boxlite-shim wrote that SIGSYS ended it"),
    ("SHIM_SECCOMP", "shim-seccomp", "boxlite-shim with SIGSYS for system call 35 of x86_64"),
    ("LIBRARY_LOST", "runtime-library", "3c4eaf9215b6 has no such file"),
]
CLONE, LIMIT = "kernel.unprivileged_userns_clone", "user.max_user_namespaces"
NONE = NONE_RUN.by_name()
BUNDLED = {"bwrap_user": examples.NO_PROGRAM, "bwrap_all": examples.NO_PROGRAM}
NO_BWRAP = {"bwrap_user": NOT_RUN, "bwrap_all": NOT_RUN}
DENIED_ELSEWHERE = examples.DENIED_CAP_BWRAP.replace("capability=21", "capability={}").replace('"unpriv', '"an')
MOVED_UNSHARE = examples.UBUNTU_MOVED.replace("bwrap", "unshare")
OTHER_MOUNT = examples.MASKED_PROC.probes.model_copy(
    update={"bwrap_all": probe(1, "bwrap: Can't mount devpts on /newroot/dev/pts: Operation not permitted")}
)


def example(name: str) -> Evidence:
    evidence: Evidence = getattr(examples, name)
    return evidence


def fails_control(cause: str) -> bool:
    return Needs.BOX.includes(causes.list_causes()[cause].breaks)


def causes_of(evidence: Evidence) -> list[str]:
    return [finding.name for finding in diagnose_evidence(evidence)]


@pytest.mark.parametrize(("name", "cause", "why"), [*SEEN, *REPORTED])
def test_what_was_seen_on_real_guests_proves_its_cause_and_no_other(name: str, cause: str, why: str) -> None:
    evidence = example(name)
    finding, *others = diagnose_evidence(evidence)
    assert (finding.name, finding.confidence) == (cause, Confidence.PROVED)
    assert why in finding.reason
    # A container's masks are detected, whatever else blocks in it.
    masked = not evidence.probes.proc_unmasked.worked and cause not in ("masked-proc", "service-masks-proc")
    behind = ["masked-proc"] if masked else []
    assert [(other.name, other.confidence) for other in others] == [
        (name, Confidence.LIKELY) for name in behind
    ]


@pytest.mark.parametrize(("name", "cause", "_why"), SEEN)
def test_a_cause_needs_the_support_of_the_control_test(name: str, cause: str, _why: str) -> None:
    evidence = example(name)
    # One of the sandbox does not fail the control; one that fails the control is none where that passed.
    assert causes_of(replace(evidence, control_failed=not fails_control(cause))) == []
    proved = [cause.name for cause in diagnose_evidence(evidence) if cause.confidence is Confidence.PROVED]
    assert proved
    assert causes_of(replace(evidence, control_failed=None)) == proved


def test_a_cause_of_the_sandbox_stands_beside_one_that_fails_the_control() -> None:
    open_kvm = examples.KVM_DENIED.probes.open_kvm
    probes = examples.USERNS_LIMIT.probes.model_copy(update={"open_kvm": open_kvm})
    both = replace(examples.USERNS_LIMIT, probes=probes)
    assert causes_of(replace(both, control_failed=True)) == ["kvm-denied", "userns-limit"]
    # The message alone may be wrong, and then only what is proved counts besides.
    by_words = replace(examples.USERNS_LIMIT, messages=examples.KVM_DENIED.messages, control_failed=True)
    assert causes_of(by_words) == ["kvm-denied", "userns-limit"]
    half = gathered(probes={"unshare_user": examples.ENOSPC})
    likely = replace(half, messages=examples.KVM_DENIED.messages, control_failed=True)
    assert causes_of(replace(likely, control_failed=False)) == ["userns-limit"]
    assert causes_of(likely) == ["kvm-denied"]
    # Where bubblewrap makes no sandbox, no shim starts in one; and every shim loads the library, but only one
    # without a network is under boxlite's filter.
    logs = (*examples.LIBRARY_CRASHES.logs, *examples.SHIM_WROTE_SIGSYS.logs)
    blocked = replace(examples.USERNS_LIMIT, logs=logs, control_failed=True)
    assert causes_of(blocked) == ["userns-limit", "runtime-library", "shim-seccomp"]


NO_CAUSE = {
    "clean": examples.CLEAN,
    "a box in a control group of its own": examples.CGROUP_JOINED,
    "a step of the child that no limit explains": replace(examples.NOFILE_LIMIT, limits=examples.CLEAN.limits),
    "limits that nobody read": replace(examples.NOFILE_LIMIT, limits=None),
    "no process of the box": gathered(groups=(BoxGroups(caller=examples.SSH_SERVICE, box=[]),)),
    "nothing gathered": Evidence(),
    "bwrap's text alone": gathered(probes=dict.fromkeys(NO_BWRAP, examples.BWRAP_REFUSED)),
    "bwrap's other text": gathered(probes={"bwrap_all": examples.BWRAP_EACCES}),
    "a refused mount where no profile confines": replace(examples.APPARMOR_MOUNT_DENY_QUIET, profile=None),
    "no probe ran": gathered(probes=NONE),
    "a forbidden bubblewrap, where boxlite has its own": replace(examples.BWRAP_EXEC_DENIED, logs=()),
    "a forbidden shim that nobody tried": replace(examples.SHIM_NOT_EXECUTABLE, logs=()),
    "a copy of the shim that has the permission": examples.SHIM_EXECUTABLE,
    "a shim that a profile may deny": replace(
        examples.SHIM_NOT_EXECUTABLE, modes={}, profile="lab-without-shim"
    ),
    "a bubblewrap that others may execute": gathered(examples.DENIED_EXEC),
    "another forbidden program": gathered(examples.DENIED_EXEC.replace("/bwrap", "/mke2fs"), probes=NONE),
    "a home in which something else forbids to execute": gathered(
        probes={"exec_home": examples.HOME_NOEXEC.probes.exec_home}, control_failed=True
    ),
    "masks upon /proc that are in nobody's way": gathered(probes={"proc_unmasked": examples.MASKS}),
    "masks upon /proc where there is no bubblewrap": gathered(probes={**NONE, "proc_unmasked": examples.MASKS}),
    "no /proc, for another reason": gathered(probes={"bwrap_all": examples.MASKED_PROC.probes.bwrap_all}),
    "masks upon /proc, and another failed mount": replace(examples.MASKED_PROC, probes=OTHER_MOUNT),
    "no namespaces, but bubblewrap made them": gathered(sysctls={"user.max_pid_namespaces": "0"}),
    "no namespaces of an unused kind": gathered(probes=NO_BWRAP, sysctls={"user.max_net_namespaces": "0"}),
    "a probe that Ubuntu's policy denies, where bubblewrap may": gathered(
        examples.DENIED_CAP_BWRAP.replace('comm="bwrap"', 'comm="unshare"'),
        probes={"unshare_user_root": examples.UID_MAP},
        messages=("VM subprocess exited",),
    ),
    # What happens to other programs happens on every Ubuntu, also where bubblewrap works.
    "a probe that Ubuntu's policy moves, but not boxlite's bubblewrap": replace(
        examples.UBUNTU_BUNDLED_NOT_LOGGED, audit=parse_audit(MOVED_UNSHARE)
    ),
    "no capabilities, and no word of bubblewrap": replace(examples.UBUNTU_BUNDLED_NOT_LOGGED, logs=()),
    "no capabilities, for an unknown reason": replace(examples.UBUNTU_BUNDLED_NOT_LOGGED, sysctls={}),
    "a probe that is denied, where there is no bubblewrap": gathered(
        examples.DENIED_CREATE.replace("bwrap", "unshare"),
        probes={"bwrap_user": NOT_RUN, "unshare_user": examples.UNSHARE_EACCES},
    ),
    "a moved probe, but no bubblewrap": gathered(MOVED_UNSHARE, probes={"unshare_user_root": examples.UID_MAP}),
    "a user to whom the sysctl does not apply": gathered(sysctls={"kernel.unprivileged_userns_clone": "0"}),
    "a user to whom the limit does not apply": gathered(sysctls={"user.max_user_namespaces": "0"}),
    "a service whose settings leave boxlite alone": gathered(probes=examples.service(PrivateTmp="yes")),
    "settings of a service that are not in force": gathered(
        probes=examples.service(PrivateDevices="yes", RestrictNamespaces="yes", SystemCallFilter="mount")
    ),
    # Debian's kernel asks the sysctl before it looks at the flags; nobody told its value.
    "a service that allows the namespaces of the jailer": gathered(
        probes=examples.SERVICE_NAMESPACES.probes.by_name()
        | examples.service(RestrictNamespaces="ipc mnt pid user uts")
    ),
    "a filter of a service that allows what something else denies": gathered(
        probes=examples.SERVICE_CALLS.probes.by_name() | examples.service(SystemCallFilter="pivot_root")
    ),
    "a /proc that no setting of a service explains": gathered(
        probes={"bwrap_user": examples.SERVICE_PROC_SUBSET.probes.bwrap_user}
    ),
    "a missing openat2 that no setting of a service explains": gathered(
        probes={"bwrap_user": examples.SERVICE_OPENAT2.probes.bwrap_user}
    ),
    "a filter that no setting of a service explains": gathered(
        probes={"unshare_flags": examples.SERVICE_NAMESPACES.probes.unshare_flags}
    ),
    "a service whose settings nobody tells": gathered(
        probes=examples.SERVICE_NAMESPACES.probes.by_name()
        | {"service_unrestricted": NONE_RUN.service_unrestricted}
    ),
    "a profile that denies an absent bubblewrap": gathered(examples.DENIED_EXEC, probes=BUNDLED),
    # libkrun's words alone: boxlite went on, or they are of another program.
    "a library that boxlite does not miss": replace(examples.LIBRARY_LOST, messages=()),
}


@pytest.mark.parametrize("name", NO_CAUSE)
def test_evidence_that_shows_no_cause_proves_none(name: str) -> None:
    assert causes_of(NO_CAUSE[name]) == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("DENIED_CAP_BOXLITE", {}),
        ("DENIED_CAP_BWRAP", {"bwrap": "firefox"}),
        ("DENIED_CREATE", {"bwrap": "firefox"}),
        ("DENIED_CAP_BWRAP", {"DENIED": "ALLOWED"}),
        ("DENIED_CREATE", {"DENIED": "AUDIT"}),
        ("DENIED_MOUNT", {"bwrap": "fusermount"}),
        ("DENIED_MOUNT", {"DENIED": "ALLOWED"}),
        ("DENIED_PIVOT_ROOT", {"bwrap": "runc"}),
        ("DENIED_CAP_BWRAP", {"capability=21": "capability=12", '"unpriv': '"another'}),
        ("SELINUX_DENIED", {"bwrap": "firefox"}),
        ("SELINUX_DENIED", {"permissive=0": "permissive=1"}),
        ("SELINUX_DENIED", {"tclass=user_namespace": "tclass=file"}),
        ("SELINUX_DENIED", {"{ create }": "{ write }"}),
        ("SELINUX_DENIED_MOUNT", {"bwrap": "firefox"}),
        ("SELINUX_DENIED_MOUNT", {"permissive=0": "permissive=1"}),
        ("SHIM_KILLED", {"boxlite-shim": "firefox"}),
        ("SHIM_KILLED", {"sig=31": "sig=11"}),
    ],
)
def test_other_programs_and_other_rules_prove_nothing(name: str, changes: dict[str, str]) -> None:
    kernel = getattr(examples, name)
    for old, new in changes.items():
        assert old in kernel
        kernel = kernel.replace(old, new)
    assert causes_of(gathered(kernel)) == []


@pytest.mark.parametrize(
    ("kernel", "probes", "sysctls", "expected"),
    [
        ("DENIED_CREATE", "USERNS_SYSCTL", [CLONE], "userns-sysctl apparmor-userns-deny"),
        ("NOISE", "USERNS_SYSCTL", [CLONE, LIMIT], "userns-sysctl userns-limit"),
        ("DENIED_CAP_BWRAP DENIED_CREATE", "APPARMOR_DENY", [], "apparmor-userns-deny apparmor-userns-nocaps"),
    ],
)
def test_two_causes_are_named_in_order(kernel: str, probes: str, sysctls: list[str], expected: str) -> None:
    evidence = gathered(
        "".join(getattr(examples, name) for name in kernel.split()),
        probes=example(probes).probes.by_name(),
        sysctls=dict.fromkeys(sysctls, "0"),
    )
    assert causes_of(evidence) == expected.split()


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (gathered(probes=NONE, sysctls={"kernel.unprivileged_userns_clone": "0"}), "userns-sysctl"),
        (gathered(probes=NONE, sysctls={"user.max_user_namespaces": "0"}), "userns-limit"),
        (gathered(probes={"unshare_user": examples.ENOSPC}), "userns-limit"),
        (gathered(probes=NO_BWRAP, sysctls={"user.max_ipc_namespaces": "0"}), "namespace-limit"),
        (gathered(probes=examples.NAMESPACE_LIMIT.probes.by_name()), "namespace-limit"),
        (gathered(examples.DENIED_CREATE), "apparmor-userns-deny"),
        (gathered(examples.SELINUX_DENIED), "selinux-userns-deny"),
        (gathered(examples.DENIED_CAP_BWRAP), "apparmor-userns-nocaps"),
        # In any profile, but only of a capability that bubblewrap needs.
        *((gathered(DENIED_ELSEWHERE.format(number)), "apparmor-userns-nocaps") for number in (8, 21)),
        (gathered(examples.DENIED_MOUNT), "apparmor-mount-deny"),
        (gathered(examples.SELINUX_DENIED_MOUNT), "selinux-mount-deny"),
        (replace(examples.BWRAP_EXEC_DENIED, probes=NONE_RUN), "bwrap-exec-denied"),
        (replace(examples.BWRAP_EXEC_DENIED_LOGGED, logs=()), "bwrap-exec-denied"),
        (gathered(messages=examples.BWRAP_EXEC_DENIED.logs), "bwrap-exec-denied"),
        (examples.APPARMOR_MOUNT_DENY_QUIET, "apparmor-mount-deny"),
        (gathered(examples.DENIED_PIVOT_ROOT), "apparmor-mount-deny"),
        (replace(examples.APPARMOR_PIVOT_ROOT_DENY, audit=[]), "apparmor-mount-deny"),
        (gathered(probes=NONE, messages=("bwrap: pivot_root: Permission denied",)), "apparmor-mount-deny"),
        (examples.NPROC_LIMIT, "nproc-limit"),
        (replace(examples.SHIM_NOT_EXECUTABLE, modes={}), "shim-not-executable"),
        (examples.UBUNTU_BUNDLED_NOT_LOGGED, "apparmor-userns-nocaps"),
        (replace(examples.SHIM_SECCOMP, audit=[]), "shim-seccomp"),
        (replace(examples.KVM_UNUSABLE, probes=NONE_RUN), "kvm-unusable"),
        (replace(examples.SOCKET_FOLDER, probes=NONE_RUN), "socket-folder"),
        (replace(examples.TMP_CLOSED, probes=NONE_RUN), "socket-folder"),
        (replace(examples.LIBRARY_LOST, modes={}), "runtime-library"),
        (examples.CGROUP_UNAVAILABLE, "cgroup-unavailable"),
        (examples.LIBRARY_CRASHES, "runtime-library"),
        (gathered(messages=("Box 01K failed to start\n\nExit code: 159 (unknown signal)",)), "shim-seccomp"),
    ],
)
def test_half_of_the_evidence_makes_a_cause_likely_and_no_more(evidence: Evidence, cause: str) -> None:
    [finding] = diagnose_evidence(evidence)
    assert (finding.name, finding.confidence) == (cause, Confidence.LIKELY)


def test_ubuntus_policy_is_proved_where_its_lines_are_of_the_bubblewrap_that_boxlite_ships() -> None:
    # There is no other one, so that the probes of bubblewrap did not run.
    probes = {**examples.UBUNTU_PROBES, **NO_BWRAP}
    [finding] = diagnose_evidence(gathered(examples.UBUNTU_MOVED, probes=probes, logs=examples.BUNDLED_SAYS))
    assert (finding.name, finding.confidence) == ("apparmor-userns-nocaps", Confidence.PROVED)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("SERVICE_PRIVATE_DEVICES", "kvm-absent"),
        ("SERVICE_DEVICE_RULES", "kvm-denied"),
        ("SERVICE_STRICT", "socket-folder"),
        ("SERVICE_PROC", "masked-proc"),
    ],
)
def test_what_a_service_explains_is_no_cause_of_the_host(name: str, cause: str) -> None:
    within = example(name)
    outside = within.probes.model_copy(update={"service_unrestricted": service_probe()})
    assert cause not in causes_of(within)
    assert causes_of(replace(within, probes=outside)) == [cause]


def test_a_filter_of_a_service_is_no_containers() -> None:
    # SystemCallFilter=~unshare with SystemCallErrorNumber=EPERM.
    filtered = examples.SECCOMP.probes.model_copy(update=examples.service(SystemCallFilter="unshare"))
    assert causes_of(replace(examples.SECCOMP, probes=filtered))[0] == "service-filters-calls"
    assert "seccomp" not in causes_of(replace(examples.SECCOMP, probes=filtered))


def test_a_shim_that_made_another_call_than_the_service_denies_met_boxlites_own_filter() -> None:
    assert causes_of(gathered(examples.SHIM_KILLED, probes=examples.service(SystemCallFilter="seccomp"))) == [
        "shim-seccomp"
    ]


def test_an_error_that_a_list_of_system_calls_gives_is_not_that_of_openat2() -> None:
    # SystemCallErrorNumber=ENOSYS.
    refused = bwrap(probe(1, "bwrap: Failed to make / slave: Function not implemented"))
    refused |= {"mount_nothing": probe(38, "Function not implemented")}
    settings = examples.service(RestrictSUIDSGID="yes", SystemCallFilter="mount pivot_root umount2")
    assert causes_of(gathered(probes=refused | settings)) == ["service-filters-calls"]


def test_a_denial_of_kvm_to_another_program_leaves_the_permissions_to_blame() -> None:
    # Another user's program, in a profile of its own.
    both = replace(examples.KVM_DENIED, audit=examples.APPARMOR_KVM_DENY.audit)
    assert causes_of(both) == ["kvm-denied"]
    assert causes_of(replace(both, probes=NONE_RUN)) == ["apparmor-kvm-deny"]


def test_every_cause_was_seen_on_a_real_guest_or_is_known_from_a_report_and_says_what_a_user_must_know() -> (
    None
):
    assert set(causes.list_causes()) == {
        "nproc-limit",
        "cgroup-unavailable",
        *(cause for _, cause, _ in [*SEEN, *REPORTED]),
    }
    assert len(causes.list_causes()) == len(CAUSES)
    for cause in CAUSES:
        assert cause.explanation.count(". ") == 1
        assert cause.explanation.endswith(".")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("failed to run bwrap: Resource temporarily unavailable (os error 11)", True),
        ("Failed to run mke2fs (/home/me/mke2fs): Resource temporarily unavailable (os error 11)", True),
        ("Failed to spawn boxlite-shim: Resource temporarily unavailable (os error 11)", True),
        ('failed to spawn thread: Os { code: 11, kind: WouldBlock, message: "Resource', True),
        ("runtime: failed to create new OS thread (have 2 already; errno=11)", True),
        ("runtime/cgo: pthread_create failed: Resource temporarily unavailable", True),
        ("read from the console: Resource temporarily unavailable (os error 11)", False),
        ("failed to run bwrap: Permission denied (os error 13)", False),
    ],
)
def test_the_limit_on_processes_is_told_by_what_could_not_be_started(message: str, told: bool) -> None:
    assert causes_of(gathered(logs=(message,), probes=NONE, control_failed=True)) == (
        ["nproc-limit"] if told else []
    )


@pytest.mark.parametrize(("nofile", "found"), [(1023, ["nofile-limit"]), (1024, [])])
def test_a_limit_of_open_files_that_no_box_has_met_is_only_likely(nofile: int, found: list[str]) -> None:
    findings = diagnose_evidence(gathered(nofile=nofile))
    assert [(each.name, each.confidence) for each in findings] == [(name, Confidence.LIKELY) for name in found]


@pytest.mark.parametrize(
    ("boxlite", "named"),
    [
        ("0.10.8", True),
        ("0.12.0", False),
        ("0.13.1", False),
        ("0.12.0.dev5+gabc", False),
        ("", True),
        ("main", True),
    ],
)
def test_a_cause_is_not_named_for_a_version_that_cannot_have_it(
    monkeypatch: pytest.MonkeyPatch, boxlite: str, named: bool
) -> None:
    ending = [
        replace(cause, until=Version("0.12.0")) if cause.name == "runtime-library" else cause
        for cause in CAUSES
    ]
    monkeypatch.setattr("lab.causes.rule.CAUSES", ending)
    evidence = replace(examples.LIBRARY_LOST, boxlite=boxlite)
    assert causes_of(evidence) == (["runtime-library"] if named else [])


def test_the_limit_on_processes_is_shown_by_a_probe_that_starts_as_many_as_a_box_has() -> None:
    refused = {"start_processes": probe(11, "Resource temporarily unavailable", ["fork", "9 at once"])}
    [finding] = diagnose_evidence(gathered(probes=refused, control_failed=True))
    assert (finding.name, finding.confidence) == ("nproc-limit", Confidence.LIKELY)
    assert finding.reason.endswith("of a box, fork 9 at once: Resource temporarily unavailable")


def test_a_symlink_that_bubblewrap_names_is_named_whoever_quotes_it() -> None:
    message = "bwrap: Can't mount on symlink destination /home/me/link: it is\x1b[0m one"
    for quoting in (
        gathered(logs=(message,)),
        gathered(messages=(message,)),
        gathered(probes={"bwrap_user": probe(1, message)}),
    ):
        [finding] = diagnose_evidence(quoting)
        assert finding.name == "mount-symlink"
        assert finding.reason.endswith("Can't mount on symlink destination /home/me/link")


def test_a_denial_of_boxlites_own_thread_counts_in_the_profile_that_confined_the_suite(tmp_path: Path) -> None:
    # Recorded on a debian-13 whose kernel did not repeat the denial for bwrap.
    (tmp_path / "kernel.log").write_text(examples.DENIED_CAP_BOXLITE)
    probes = {
        "unshare_user": probe(0),
        "unshare_user_root": probe(1, "unshare: write failed /proc/self/uid_map"),
        "bwrap_user": examples.BWRAP_REFUSED,
    }
    for context, expected in (
        ("unprivileged_userns (enforce)", ["apparmor-userns-nocaps"]),
        ("unconfined//&unprivileged_userns (enforce)", ["apparmor-userns-nocaps"]),
        ("other//&unprivileged_userns (enforce)", ["apparmor-userns-nocaps"]),
        ("unprivileged_userns (unconfined)", []),
        ("unconfined", []),
        (None, []),
    ):
        stored = probed(probes, context={"apparmor": context})
        (tmp_path / "probes.json").write_text(stored.model_dump_json())
        assert causes_of(read_evidence(tmp_path)) == expected


# -- reading evidence


def test_a_cell_s_files_are_read_as_they_were_gathered(tmp_path: Path) -> None:
    kernel = examples.NOISE + examples.DENIED_CREATE
    examples.write(tmp_path, examples.APPARMOR_DENY, kernel)
    control = TestResult(name="control", outcome=Outcome.PASS)
    assert evidence.read_evidence(tmp_path, [control], control="control") == examples.APPARMOR_DENY


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [("pass", False), ("fail", True), ("error", True), ("skip", None), ("not-run", None), (None, None)],
)
def test_a_control_may_have_no_result(tmp_path: Path, outcome: str | None, failed: bool | None) -> None:
    tests = [TestResult(name="control", outcome=Outcome(outcome))] if outcome else []
    tests.append(TestResult(name="other", outcome=Outcome.FAIL))
    assert evidence.read_evidence(tmp_path, tests, control="control").control_failed is failed


@pytest.mark.parametrize(
    ("log", "killed"),
    [
        (examples.NO_MEMORY * 2 + examples.NO_MEMORY.replace("python3", "shim"), ["python3", "shim"]),
        # A control group, another program's words, half a line.
        (examples.NO_MEMORY.replace("Out of memory", "Memory cgroup out of memory"), []),
        (examples.NO_MEMORY.replace("Out of memory", "box: Out of memory"), []),
        ("[   71.6] boxlite[3]: Out of memory: Killed process\n", []),
    ],
)
def test_what_was_killed_for_want_of_memory_is_named(tmp_path: Path, log: str, killed: list[str]) -> None:
    assert evidence.find_killed_programs(tmp_path) == []
    (tmp_path / "kernel.log").write_text(examples.NOISE + log)
    assert evidence.find_killed_programs(tmp_path) == killed


def test_probes_and_what_confined_them_are_read_from_their_file(tmp_path: Path) -> None:
    nothing = evidence.read_evidence(tmp_path)
    assert nothing == Evidence()
    assert (nothing.probes.unshare_user.status, nothing.probes.ran) == (None, False)
    stored = probed({"bwrap_user": probe(1, "bwrap: refused")}, context={"apparmor": "a (enforce)"})
    (tmp_path / "probes.json").write_text(stored.model_dump_json())
    gathered = evidence.read_evidence(tmp_path)
    assert (gathered.profile, gathered.probes.ran) == ("a", True)
    assert gathered.probes == NONE_RUN.model_copy(update={"bwrap_user": probe(1, "bwrap: refused")})
    assert gathered.probes.bwrap_all == NOT_RUN


def without(first: str, second: str = "") -> str:
    """A file of probes without one of its keys."""
    document: Any = json.loads(probed({}).model_dump_json())
    if second:
        del document[first][second]
    else:
        del document[first]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{", "Invalid JSON"),
        (without("probes"), "probes: Field required"),
        (without("probes", "unshare_user"), "probes.unshare_user: Field required"),
        (without("context", "apparmor"), "context.apparmor: Field required"),
    ],
)
def test_damaged_probes_name_the_file_and_the_key(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "probes.json").write_text(text)
    with pytest.raises(LabError, match=re.escape(str(tmp_path / "probes.json"))) as error:
        evidence.read_evidence(tmp_path)
    assert key in str(error.value)


def test_a_name_with_spaces_in_an_audit_line_stays_whole() -> None:
    [line] = evidence.parse_audit('audit: type=1400 audit(1.5:2): comm="Web Content" name="/tmp/a=b" pid=1')
    assert (line["comm"], line["name"], line["pid"]) == ("Web Content", "/tmp/a=b", "1")


def test_where_an_audit_daemon_takes_the_lines_they_are_read_from_its_log(tmp_path: Path) -> None:
    (tmp_path / "kernel.log").write_text(examples.NOISE)
    (tmp_path / "audit.log").write_text(
        'type=AVC msg=audit(1795536999.471:105): avc:  denied  { create } for  pid=744 comm="bwrap" '
        "scontext=a:b:c:s0 tcontext=a:b:c:s0 tclass=user_namespace permissive=0\n"
    )
    [line] = evidence.read_evidence(tmp_path).avc_denied("create", tclass="user_namespace", permissive="0")
    assert line["comm"] == "bwrap"
    assert evidence.read_evidence(tmp_path).avc_denied("write") == []


def test_refusals_are_what_was_refused_and_not_what_was_only_logged(tmp_path: Path) -> None:
    refused = [examples.DENIED_CREATE, examples.SELINUX_DENIED, examples.DISCONNECTED]
    allowed = [examples.SELINUX_DENIED.replace("permissive=0", "permissive=1"), examples.NOISE]
    allowed.append(examples.DENIED_CREATE.replace("DENIED", "ALLOWED"))
    (tmp_path / "kernel.log").write_text("".join([*allowed, *refused]))
    assert evidence.find_refusals(tmp_path) == {"kernel.log": "".join(refused).splitlines()}


@pytest.mark.parametrize(
    "log",
    [
        "",
        "\n",
        examples.NOISE,
        'boxlite: apparmor="DENIED" says the program\n',
        # Who may make a user namespace has the kernel log any words by mount(2); this is Linux 6.1's overlay.
        "[   71.6] overlayfs: unrecognized mount option "
        f'"{examples.DENIED_CREATE.partition("] ")[2].strip()}" or missing value\n',
        f"[   71.6] fuse: Unknown parameter '{examples.DENIED_CREATE.partition('] ')[2]}",
    ],
)
def test_other_lines_are_no_audit_lines(log: str) -> None:
    assert evidence.parse_audit(log) == []


HOSTILE = [
    "x",
    "x ",
    "=",
    'a="',
    'a=" ',
    "avc:  denied  { ",
    "avc:  denied  ",
    "avc:" + " " * 20,
    "avc:  denied  { create } for permissive=",
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", HOSTILE)
def test_audit_lines_of_any_length_are_read(tmp_path: Path, piece: str) -> None:
    # A reader that tries each split of a line takes hours for this.
    line = "audit: type=1400 audit(1.5:2): " + piece * (2**20 // len(piece)) + " permissive=1"
    (tmp_path / "kernel.log").write_text(line)
    evidence.find_refusals(tmp_path)
    evidence.parse_audit(line)


def test_boxlites_own_logs_are_read_as_far_as_each_goes(tmp_path: Path) -> None:
    logs = tmp_path / "boxlite" / "box-a" / "logs"
    (logs / "boxlite.log.2026-11-25").mkdir(parents=True)
    (logs / "boxlite.log.2026-11-26").write_bytes(b"it failed \xff" + b"x" * LOG_BYTES)
    gathered = evidence.read_evidence(tmp_path)
    assert [len(log) for log in gathered.logs] == [LOG_BYTES]
    assert gathered.boxlite_says("it failed")
    assert not gathered.says("it failed")
    assert not gathered.boxlite_says("it worked")


def test_modes_are_read_by_path_and_other_lines_are_left_out(tmp_path: Path) -> None:
    lines = ("0755 runtimes/v1/boxlite-shim", "0664 box-a/boxes/B0X/bin/a name", "0999 no-mode", "words")
    (tmp_path / "modes.txt").write_text("\n".join(lines) + "\n")
    modes = evidence.read_evidence(tmp_path).modes
    assert modes == {"runtimes/v1/boxlite-shim": 0o755, "box-a/boxes/B0X/bin/a name": 0o664}


SIGSYS = '{"type":"signal","exit_code":159,"signal":"SIGSYS"}'
NO_THREAD = "runtime/cgo: pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort\n"


@pytest.mark.parametrize(
    ("name", "text", "cause", "confidence"),
    [
        ("exit", SIGSYS, "shim-seccomp", Confidence.PROVED),
        ("exit.previous", SIGSYS, "shim-seccomp", Confidence.PROVED),
        ("shim.stderr", NO_THREAD, "nproc-limit", Confidence.LIKELY),
    ],
)
def test_what_a_box_and_its_shim_wrote_is_read_as_a_log_is(
    tmp_path: Path, name: str, text: str, cause: str, confidence: Confidence
) -> None:
    box = tmp_path / "boxlite" / "box-a" / "boxes" / "B0X"
    box.mkdir(parents=True)
    (box / name).write_text(text)
    control = TestResult(name="control", outcome=Outcome.FAIL, message="The VM failed to start.")
    tests = [control] if cause == "nproc-limit" else []
    [finding] = causes.diagnose_evidence(evidence.read_evidence(tmp_path, tests, control="control"))
    assert (finding.name, finding.confidence) == (cause, confidence)


def test_a_system_call_has_its_number_on_its_own_architecture() -> None:
    [line] = [line for line in examples.SHIM_SECCOMP.audit if "syscall" in line]
    for arch, of in (("c00000b7", "35 of aarch64"), ("40000028", "35")):
        [finding] = diagnose_evidence(replace(examples.SHIM_SECCOMP, audit=[{**line, "arch": arch}]))
        assert finding.reason.endswith(f"for system call {of}")


def test_control_groups_are_evidence_if_their_test_did_not_pass(tmp_path: Path) -> None:
    groups = BoxGroups(caller=examples.SSH_SERVICE, box=[examples.SSH_SERVICE])
    tests = [TestResult(name="stops", outcome=Outcome.FAIL, groups=groups)]
    control = TestResult(name="control", outcome=Outcome.PASS)
    evidence = read_evidence(tmp_path, [control, *tests], control="control")
    assert causes_of(evidence) == ["cgroup-not-joined"]
    passed = [control, tests[0].with_values(outcome=Outcome.PASS)]
    assert causes_of(read_evidence(tmp_path, passed, control="control")) == []
