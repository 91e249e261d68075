"""Whether libvirt may start machines, with a stand-in for libvirt that remembers what it was told."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from lab.base.paths import Paths
from lab.images import disk, store
from lab.machine import acceleration, leftovers, proof
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.machine.proof import Refusal
from tests.builders.daemon import Daemon
from tests.builders.guests import base_image

CONSOLE = (
    'type=AVC msg=audit(1.2:3): avc:  denied  { write } for  pid=812 comm="virtlogd" name="paused-x" '
    "scontext=system_u:system_r:virtlogd_t:s0 tcontext=unconfined_u:object_r:var_lib_t:s0 tclass=dir"
)
OLDER = CONSOLE.replace("pid=812", "pid=811")
REFUSED = "Unable to open file: /var/x/console.log: Permission denied\n"


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The daemon of a host whose logs tell of a second denial; nothing of a machine is left afterwards."""
    logs = [[OLDER], [OLDER, CONSOLE]]
    monkeypatch.setattr(proof, "log_lines", lambda: logs.pop(0) if logs else [])
    made = Daemon()
    yield made
    assert not any(machine.is_there for machine in made.machines)
    paused = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
    assert all(machine.flags == paused for machine in made.machines)
    assert leftovers.lanes(paths) == []


def test_a_machine_is_tried_each_time(paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "any_image", lambda known: base_image(known.images))
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
    known = None if kvm is None else Acceleration(kvm, "")
    monkeypatch.setattr(acceleration, "cached", lambda *_: known)
    assert proof.prove(daemon, paths) is None
    assert [machine.xml.get("type") for machine in daemon.machines] == [kind]


def test_a_refusal_is_told_with_logs_unless_the_daemon_went_away(paths: Paths, daemon: Daemon) -> None:
    daemon.refuses["qemu"] = REFUSED
    assert proof.prove(daemon, paths) == Refusal(REFUSED.strip(), [CONSOLE])
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


def test_what_to_do_is_the_rule_or_the_logs_to_read(paths: Paths) -> None:
    rule = f"the SELinux label virt_log_t on {paths.state} and all below it"
    told = f"./setup.sh --allow=consoles doctor adds this rule: {rule}"
    assert [proof.mend(Refusal("", lines), paths) for lines in ([CONSOLE], [])] == [told, proof.READ_LOGS]
