"""Lines of the kernel's and auditd's logs as they are in public reports, except where it is said otherwise."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base import process
from lab.machine import proof
from lab.machine.proof import CONSOLES, HostLog, rule_for

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


class Logs:
    """The logs of a host: files, and what its journal prints."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel, self.audit, self.journal = folder / "kmsg", folder / "audit.log", ""
        self.since: list[str] = []
        monkeypatch.setattr(proof, "KERNEL_LOG", self.kernel)
        monkeypatch.setattr(proof, "AUDIT_LOG", self.audit)
        monkeypatch.setattr(process, "run", self._run)

    def _run(self, command: list[str], *, timeout: float) -> str:
        assert command[0] == "journalctl"
        self.since.append(command[-1])
        if not self.journal:
            raise process.CommandFailed(command, "exit status 1", "")
        return self.journal

    def write(self, file: Path, *lines: str) -> None:
        with file.open("a") as log:
            log.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
    return Logs(tmp_path, monkeypatch)


@pytest.fixture
def records(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of a pipe that stands for /dev/kmsg: each write is a record."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    opened = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *a, **k: os.dup(reading) if path == logs.kernel else opened(path, *a, **k)
    )
    monkeypatch.setattr(os, "lseek", lambda *_: 0)
    yield writing
    os.close(reading)
    os.close(writing)


def test_the_kernel_s_denials_are_found_among_its_other_lines(logs: Logs, records: int) -> None:
    with HostLog() as log:
        for text in ("usb 1-1: new device", DISK, OTHER, ALLOWED, SEGFAULT):
            os.write(records, f"5,1234,98765432,-;{text}\n SUBSYSTEM=x\n".encode())
        assert log.denials() == [DISK, SEGFAULT]


def test_what_auditd_wrote_before_is_not_told(logs: Logs) -> None:
    logs.write(logs.audit, AUDITD.replace("virtlogd", "qemu-kvm"))
    with HostLog() as log:
        logs.write(logs.audit, "type=LOGIN msg=audit(1.2:3): pid=1", AUDITD)
        assert log.denials() == [AUDITD]


def test_a_file_that_auditd_began_meanwhile_is_read_from_its_start(logs: Logs) -> None:
    logs.write(logs.audit, "x" * 10_000)
    with HostLog() as log:
        logs.audit.write_text(f"{AUDITD}\n")
        assert log.denials() == [AUDITD]


def test_the_journal_is_asked_for_the_block_s_time(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1786952490.25)
    logs.journal = f"libvirtd started\n{DISK}\n"
    with HostLog() as log:
        assert log.denials() == [DISK]
    assert logs.since == ["--since=@1786952490"]


def test_one_denial_in_several_logs_or_by_several_processes_is_told_once(logs: Logs) -> None:
    again = DISK.replace("076:105", "077:106").replace("pid=750", "pid=751")
    logs.journal = f"{DISK}\n{again}\n{AUDITD}\naudit: type=1400 audit(1.2:3): {CONSOLE}\n"
    with HostLog() as log:
        logs.write(logs.audit, AUDITD)
        assert log.denials() == [AUDITD, DISK]


def test_a_host_whose_logs_cannot_be_read_has_no_lines(logs: Logs) -> None:
    with HostLog() as log:
        assert log.denials() == []


def test_no_line_of_a_log_reaches_a_terminal_as_it_is(logs: Logs) -> None:
    logs.journal = f"{DISK}\x1b[31m\n"
    with HostLog() as log:
        assert "\x1b" not in log.denials()[0]


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
