"""Which network prepares images, with a stand-in for libvirt that opens ports in place of machines."""

import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from lab.base.paths import Paths
from lab.host import proof, rule
from lab.host.denials import HostLog
from lab.images import store
from lab.machine import network, overlay, ports
from lab.machine.connection import NoLibvirt
from lab.machine.domain import Network
from lab.machine.network import Verdict
from tests.unit import test_network
from tests.unit.examples import base_image

DENIAL = (
    'audit: type=1400 audit(1.2:3): apparmor="DENIED" operation="mknod" profile="passt" '
    'name="/run/user/1000/libvirt/qemu/run/passt/1.socket"'
)
CLOSED = "/dev/kmsg (sudo dmesg)"
# libvirt 11.3's words; the command line is shortened.
KILLED = (
    "internal error: Child process (/usr/bin/passt --one-off --socket "
    "/run/libvirt/qemu/passt/1-lab-network-proof-1-passt-net0.socket --mac-addr 52:54:00:1a:b0:01 "
    "--tcp-ports 127.0.0.1/22100:22) unexpected fatal signal 11"
)
GAVE_UP = (
    "internal error: Child process (passt --one-off --socket /run/user/1000/libvirt/qemu/run/passt/1.socket) "
    "unexpected exit status 1: No routable interface for IPv6: IPv6 is disabled\n"
    "UNIX domain socket bind: Permission denied\n"
)
SIGNAL = "passt was killed by signal 11"


class Machine:
    """A machine with passt, or with QEMU's own network, and whether its port is open."""

    def __init__(self, xml: str) -> None:
        self.xml = ET.fromstring(xml)
        self.disks = [str(each.get("file")) for each in self.xml.findall("devices/disk/source")]
        self.is_there = True
        self._server: socket.socket | None = None

    @property
    def network(self) -> Network:
        passt = self.xml.find("devices/interface/backend[@type='passt']") is not None
        return Network.PASST if passt else Network.QEMU

    def listen(self, address: str, port: int) -> None:
        self._server = socket.create_server((address, port))

    def destroy(self) -> None:
        self.is_there = False
        if self._server is not None:
            self._server.close()


class Daemon(test_network.Daemon):
    """A connection to libvirt, with the words by which it refuses machines of each network."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[Network, str] = {}
        self.address = "127.0.0.1"
        self.machines: list[Machine] = []
        self.port = 0
        self.is_alive = True

    def createXML(self, xml: str, flags: int) -> Machine:  # noqa: N802
        assert flags == libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
        machine = Machine(xml)
        self.machines.append(machine)
        if said := self.refusals.get(machine.network):
            machine.is_there = False
            raise libvirt.libvirtError(said)
        if self.address:
            machine.listen(self.address, self.port)
        return machine

    def isAlive(self) -> bool:  # noqa: N802
        return self.is_alive

    @property
    def tried(self) -> list[Network]:
        return [each.network for each in self.machines]


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The daemon, ports of this test's own and the logs of a host; nothing of a machine is left afterwards."""
    made = Daemon()
    reserve = ports.reserve

    def reserved(folder: Path) -> ports.Port:
        port = reserve(folder)
        made.port = port.number
        return port

    monkeypatch.setattr(ports, "FIRST", 23300)
    monkeypatch.setattr(ports, "LAST", 23349)
    monkeypatch.setattr(ports, "reserve", reserved)
    monkeypatch.setattr(rule, "show", lambda name, _paths: f"the rule {name}")
    monkeypatch.setattr(rule, "passt_lacks_it", lambda _paths: True)
    yield made
    assert not any(machine.is_there for machine in made.machines)
    assert list(paths.state.glob(f"{proof.FOLDER}*")) == []
    assert list(paths.ports.iterdir()) == []


def prove(
    daemon: Daemon, paths: Paths, monkeypatch: pytest.MonkeyPatch, denied: Sequence[str] = (DENIAL,)
) -> tuple[Verdict, list[str]]:
    """The verdict, and what was told of it."""
    monkeypatch.setattr(HostLog, "denials", lambda _log: list(denied))
    monkeypatch.setattr(HostLog, "unread", lambda _log: [CLOSED])
    told: list[str] = []
    return proof.prove(daemon, paths, kvm=False, tell=told.append), told


def test_passt_that_is_started_is_used_and_a_second_time_nothing_is_tried(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, told), (second, _) = (prove(daemon, paths, monkeypatch) for _ in range(2))
    assert daemon.tried == [Network.PASST]
    assert first == second
    said = "libvirt starts a machine, and passt opens its port on 127.0.0.1"
    assert (first.network, first.proved, first.denials, first.unread) == (Network.PASST, said, [], [])
    assert (first.rule, told) == ("", [])


def test_where_passt_is_refused_qemu_s_own_network_is_used_and_that_is_told_once_with_the_rule(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.refusals[Network.PASST] = KILLED
    verdict, told = prove(daemon, paths, monkeypatch)
    assert daemon.tried == [Network.PASST, Network.QEMU]
    assert verdict == network.cached(daemon, paths)
    assert (verdict.network, verdict.proved) == (Network.QEMU, SIGNAL)
    assert (verdict.denials, verdict.unread, verdict.rule) == ([DENIAL], [], "passt")
    assert told == [
        f"images are prepared through QEMU's own user network instead of passt: {SIGNAL}\n"
        "  next: ./setup.sh --allow=passt doctor adds this rule: the rule passt"
    ]
    again, told = prove(daemon, paths, monkeypatch)
    assert (again, told, len(daemon.machines)) == (verdict, [], 2)


def test_where_nothing_was_found_the_logs_that_may_not_be_read_are_named(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.refusals[Network.PASST] = KILLED
    verdict, [told] = prove(daemon, paths, monkeypatch, denied=[])
    assert (verdict.denials, verdict.unread, verdict.rule) == ([], [CLOSED], "")
    assert f"this user may not read what may say why: {CLOSED}" in told


def test_a_host_that_starts_no_machine_either_way_is_tried_again_next_time(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.refusals = {Network.PASST: KILLED, Network.QEMU: "no QEMU"}
    verdict, told = prove(daemon, paths, monkeypatch)
    assert (verdict.key, verdict.rule, verdict.denials, told) == ("", "passt", [DENIAL], [])
    assert verdict.proved == f"with passt: {SIGNAL}; with QEMU's own network: no QEMU"
    # setup.sh asks what is missing. No lane goes by it.
    assert network.last(paths) == verdict
    assert network.cached(daemon, paths) is None


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (KILLED, SIGNAL),
        (
            GAVE_UP,
            "passt ended with status 1: No routable interface for IPv6: IPv6 is disabled "
            "UNIX domain socket bind: Permission denied",
        ),
        ("Unable to open file: /var/x/console.log", "Unable to open file: /var/x/console.log"),
    ],
)
def test_a_refusal_is_told_without_the_command_line(refusal: str, said: str) -> None:
    assert proof.told(libvirt.libvirtError(refusal)) == said


def test_a_port_that_nobody_listens_on_shows_that_passt_is_gone(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.address = ""
    verdict, _ = prove(daemon, paths, monkeypatch)
    assert re.search(r"with passt: nothing listens on 127\.0\.0\.1:\d+: passt does not run;", verdict.proved)


def test_a_port_that_others_could_reach_is_refused(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.address = "0.0.0.0"
    verdict, _ = prove(daemon, paths, monkeypatch)
    assert "the port is open on 0.0.0.0, and not on 127.0.0.1 alone" in verdict.proved
    assert verdict.key == ""


def test_the_machine_has_a_disk_over_an_image_as_a_lane_has(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "any_image", lambda known: base_image(known.images))
    monkeypatch.setattr(overlay, "create", lambda disk, _backing: disk.touch())
    prove(daemon, paths, monkeypatch)
    [disk] = daemon.machines[0].disks
    assert Path(disk).name == "overlay.qcow2"


def test_a_daemon_that_goes_away_says_nothing_of_passt(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.refusals[Network.PASST], daemon.is_alive = "cannot read", False
    with pytest.raises(NoLibvirt, match="libvirt went away while the network was tried"):
        prove(daemon, paths, monkeypatch)
    assert not paths.network.exists()
