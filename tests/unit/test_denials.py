"""Lines of the kernel's and auditd's logs as they are in public reports, except where it is said otherwise."""

import pytest

from lab.base import process
from lab.machine.proof import CONSOLES, denials, log_lines, rule_for

UUID = "15de3735-d0a2-482b-95ce-42ab775ceaa7"
# In this form, but made up: the profile of one machine.
DISK = (
    'audit: type=1400 audit(1795707710.076:105): apparmor="DENIED" operation="open" class="file" '
    f'profile="libvirt-{UUID}" name="/srv/lab/overlay.qcow2" pid=750 '
    'comm="qemu-system-x86" requested_mask="wr" denied_mask="wr" fsuid=64055 ouid=0'
)
SEGFAULT = (
    "qemu-system-x86[4711]: segfault at 7f1 ip 00007f1 sp 00007ff error 4 in qemu-system-x86_64[7f1+2000] "
    "likely on CPU 0"
)
# Fedora, root.
CONSOLE = (
    'avc:  denied  { write } for  pid=812 comm="virtlogd" name="paused-x" dev="vda3" ino=1 '
    "scontext=system_u:system_r:virtlogd_t:s0-s0:c0.c1023 tcontext=unconfined_u:object_r:var_lib_t:s0 "
    "tclass=dir permissive=0"
)
AUDITD = f"type=AVC msg=audit(1786952496.100:241): {CONSOLE}"
OTHER = DISK.replace(f"libvirt-{UUID}", "firefox").replace("qemu-system-x86", "firefox")
ALLOWED = DISK.replace("DENIED", "ALLOWED")
AGAIN = DISK.replace("076:105", "077:106").replace("pid=750", "pid=751")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["usb 1-1: new device", DISK, OTHER, ALLOWED, SEGFAULT], [DISK, SEGFAULT]),
        # One denial or crash in several logs, or by several processes, is told once.
        ([AUDITD, DISK, AGAIN, f"audit: type=1400 audit(1.2:3): {CONSOLE}"], [AUDITD, DISK]),
        ([f"[   12.5] {SEGFAULT}", f"kernel: {SEGFAULT}"], [f"[   12.5] {SEGFAULT}"]),
        # No line of a log reaches a terminal as it is.
        ([f"{DISK}\x1b[31m"], [DISK]),
        ([], []),
    ],
)
def test_denials_and_crashes_are_told_apart_from_other_lines(lines: list[str], told: list[str]) -> None:
    assert denials(lines) == told


def test_a_log_that_cannot_be_read_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, timeout: float) -> str:
        if command[0] == "journalctl":
            return f"libvirtd started\n{DISK}\n"
        raise process.CommandFailed(command, "exit status 1", "Operation not permitted")

    monkeypatch.setattr(process, "run", run)
    assert log_lines() == ["libvirtd started", DISK]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (AUDITD, CONSOLES),
        # What no rule of setup.sh allows.
        (DISK, ""),
        (AUDITD.replace("var_lib_t", "shadow_t"), ""),
        (SEGFAULT, ""),
    ],
)
def test_the_rule_is_the_one_that_allows_what_was_denied(line: str, rule: str) -> None:
    assert rule_for([SEGFAULT, line]) == rule
