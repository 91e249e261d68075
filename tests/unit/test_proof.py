"""Whether libvirt may start machines, with a stand-in for libvirt that remembers what it was told."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from lab.base import process
from lab.base.paths import Paths
from lab.images import disk, store
from lab.machine import acceleration, leftovers, proof
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.machine.proof import Refusal, denials, log_lines
from tests.builders.daemon import Daemon
from tests.builders.guests import base_image

# Lines of the kernel's and auditd's logs as they are in public reports, except where it is said otherwise.
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
OLDER = AUDITD.replace("pid=812", "pid=811")
REFUSED = "Unable to open file: /var/x/console.log: Permission denied\n"


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The daemon of a host whose logs tell of a second denial; nothing of a machine is left afterwards."""
    logs = [[OLDER], [OLDER, AUDITD]]
    monkeypatch.setattr(proof, "log_lines", lambda: logs.pop(0) if logs else [])
    made = Daemon()
    yield made
    assert not any(machine.is_there for machine in made.machines)
    paused = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
    assert all(machine.flags == paused for machine in made.machines)
    assert leftovers.lanes(paths) == []


def test_a_machine_is_tried_each_time(paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "any_image", lambda paths: base_image(paths.images))
    monkeypatch.setattr(disk, "create_overlay", lambda overlay, _backing: overlay.touch())
    assert [proof.prove(daemon, paths) for _ in range(2)] == [None, None]
    assert len(daemon.machines) == 2
    [overlay] = daemon.machines[0].disks
    assert Path(overlay).name == "overlay.qcow2"
    network = daemon.machines[0].words[1]
    assert "restrict=on,hostfwd=tcp:127.0.0.1:231" in network


@pytest.mark.parametrize(("kvm", "kind"), [(None, "qemu"), (False, "qemu"), (True, "kvm")])
def test_it_runs_as_guests_do_and_emulated_where_kvm_was_not_tried(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, kvm: bool | None, kind: str
) -> None:
    cached = None if kvm is None else Acceleration(kvm, "")
    monkeypatch.setattr(acceleration, "cached", lambda *_: cached)
    assert proof.prove(daemon, paths) is None
    assert [machine.xml.get("type") for machine in daemon.machines] == [kind]


def test_a_refusal_is_told_with_logs_unless_the_daemon_went_away(paths: Paths, daemon: Daemon) -> None:
    daemon.refuses["qemu"] = REFUSED
    assert proof.prove(daemon, paths) == Refusal(REFUSED.strip(), [AUDITD])
    daemon.is_alive = False
    with pytest.raises(NoLibvirt, match="libvirt went away while a machine was tried"):
        proof.prove(daemon, paths)


def test_a_stuck_machine_is_ended(paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(name: str, uri: str) -> None:
        [machine] = daemon.machines
        assert (name, uri) == (machine.xml.findtext("name"), "qemu:///system")
        machine.is_there = False

    monkeypatch.setattr(leftovers, "end_machine", end)
    daemon.ends_machines = False
    assert proof.prove(daemon, paths) is None


# -- what the logs say


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
    ("line", "has_rule"),
    [
        (AUDITD, True),
        # What no rule of setup.sh allows.
        (DISK, False),
        (AUDITD.replace("var_lib_t", "shadow_t"), False),
        (SEGFAULT, False),
    ],
)
def test_what_to_do_is_the_rule_that_allows_it_or_the_logs_to_read(
    paths: Paths, line: str, has_rule: bool
) -> None:
    rule = f"./setup.sh --allow=consoles doctor puts the SELinux label virt_log_t on {paths.state}"
    assert proof.mend(Refusal("", [SEGFAULT, line]), paths) == (rule if has_rule else proof.READ_LOGS)
