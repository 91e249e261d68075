"""The tiny guest, with a stand-in for libvirt that starts a thread in place of a machine."""

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.host import initramfs, tiny_guest
from lab.host.initramfs import Kernel
from lab.host.tiny_guest import Outcome, Trial
from lab.machine import ports
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.machine.domain import KernelBoot, Network

KVM = Acceleration(True, "a test")
# libvirt 11.3's words; the command line is shortened.
KILLED = (
    "internal error: Child process (/usr/bin/passt --one-off --socket "
    "/run/libvirt/qemu/passt/1-lab-network-proof-1-passt-net0.socket --mac-addr 52:54:00:1a:b0:01 "
    "--tcp-ports 127.0.0.1/22100:22) unexpected fatal signal 11"
)
DENIED = (
    "internal error: Child process (passt --one-off --socket /run/user/1000/libvirt/qemu/run/passt/1.socket) "
    "unexpected exit status 1: No routable interface for IPv6: IPv6 is disabled\n"
    "UNIX domain socket bind: Permission denied\n"
)


class Machine:
    """What a machine does, in place of one. It ends with the test."""

    def __init__(self, xml: str, word: str, address: str = "127.0.0.1") -> None:
        root = ET.fromstring(xml)
        ports_ = root.find("devices/interface/portForward/range")
        self.port = 0 if ports_ is None else int(ports_.get("start", "0"))
        self.console = Path(root.findall("devices/serial/source")[0].get("path", ""))
        self.word, self.address = word, address
        self.runs, self.said = True, initramfs.LISTENS
        self._server: socket.socket | None = None

    def listen(self, port: int) -> None:
        self._server = socket.create_server((self.address, port))
        threading.Thread(target=self._serve, daemon=True).start()
        self.console.write_text(f"[    1.0] a kernel\r\n{self.said}\r\n")

    def _serve(self) -> None:
        assert self._server is not None
        try:
            while True:
                connected, _ = self._server.accept()
                connected.sendall(self.word.encode())
                connected.close()
        except OSError:
            return

    def state(self) -> tuple[int, int]:
        return (libvirt.VIR_DOMAIN_RUNNING if self.runs else libvirt.VIR_DOMAIN_SHUTOFF), 0

    def destroy(self) -> None:
        self.runs = False
        if self._server is not None:
            # It wakes the thread that accepts.
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()


class Daemon:
    """A connection to libvirt; `begin` is called with each machine that it starts."""

    def __init__(self) -> None:
        self.begin: Callable[[Machine], None] = lambda machine: machine.listen(machine.port)
        self.refusal = ""
        self.machines: list[Machine] = []
        self.is_alive = True
        self.address = "127.0.0.1"
        self.word = "word"

    def createXML(self, xml: str, _flags: int) -> Machine:  # noqa: N802
        if self.refusal:
            raise libvirt.libvirtError(self.refusal)
        machine = Machine(xml, self.word, self.address)
        self.machines.append(machine)
        self.begin(machine)
        return machine

    def isAlive(self) -> bool:  # noqa: N802
        return self.is_alive

    def getURI(self) -> str:  # noqa: N802
        return "qemu:///system"


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The daemon, a kernel to boot, ports of this test's own and no patience."""
    monkeypatch.setattr(initramfs, "find_kernel", lambda _paths: Kernel(Path("/boot/vmlinuz")))
    monkeypatch.setattr(initramfs, "write", lambda kernel, initrd, _word: KernelBoot(kernel.kernel, initrd))
    monkeypatch.setattr(secrets, "token_hex", lambda _count: "word")
    monkeypatch.setattr(ports, "FIRST", 23300)
    monkeypatch.setattr(ports, "LAST", 23349)
    monkeypatch.setattr(tiny_guest, "ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(tiny_guest, "BOOT_SECONDS", 0.0)
    made = Daemon()
    yield made
    for machine in made.machines:
        assert not machine.runs
    assert list(paths.state.glob(f"{tiny_guest.FOLDER}*")) == []
    assert list(paths.ports.iterdir()) == []


def start(daemon: Daemon, paths: Paths, with_: Network = Network.PASST) -> Trial:
    return tiny_guest.start(daemon, paths, KVM, with_)


def test_a_word_that_comes_back_is_the_proof(paths: Paths, daemon: Daemon) -> None:
    trial = start(daemon, paths)
    assert trial.outcome is Outcome.PROVED
    assert trial.reason.startswith("a guest answered through passt on 127.0.0.1, ")


def test_a_passt_that_dies_is_named_with_its_signal(paths: Paths, daemon: Daemon) -> None:
    daemon.refusal = KILLED
    assert start(daemon, paths) == Trial(Outcome.REFUSED, "passt was killed by signal 11")


def test_a_passt_that_gives_up_is_named_with_its_own_words(paths: Paths, daemon: Daemon) -> None:
    daemon.refusal = DENIED
    assert start(daemon, paths) == Trial(
        Outcome.REFUSED,
        "passt ended with status 1: No routable interface for IPv6: IPv6 is disabled "
        "UNIX domain socket bind: Permission denied",
    )


def test_another_refusal_of_libvirt_s_is_told_as_it_is(paths: Paths, daemon: Daemon) -> None:
    daemon.refusal = "Unable to open file: /var/lib/boxlite-lab/x/console.log: Permission denied"
    assert start(daemon, paths) == Trial(Outcome.REFUSED, daemon.refusal)


def test_a_port_that_nobody_listens_on_shows_that_passt_is_gone(paths: Paths, daemon: Daemon) -> None:
    daemon.begin = lambda _machine: None
    trial = start(daemon, paths)
    port = daemon.machines[0].port
    assert trial == Trial(Outcome.REFUSED, f"nothing listens on 127.0.0.1:{port}: passt does not run")


def test_a_port_that_others_could_reach_is_refused(paths: Paths, daemon: Daemon) -> None:
    daemon.address = "0.0.0.0"
    trial = start(daemon, paths)
    assert trial == Trial(Outcome.REFUSED, "the port is open on 0.0.0.0, and not on 127.0.0.1 alone")


def test_another_word_is_no_proof(paths: Paths, daemon: Daemon) -> None:
    daemon.word = "SSH-2.0-OpenSSH"
    trial = start(daemon, paths)
    assert trial == Trial(Outcome.REFUSED, "the guest listens, but no byte came through passt within 0 s")


def test_a_console_that_stays_empty_is_found(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_guest, "CONSOLE_SECONDS", 0.0)

    def begin(machine: Machine) -> None:
        machine.said = ""
        machine.listen(machine.port)

    daemon.begin = begin
    trial = start(daemon, paths)
    assert trial.outcome is Outcome.NO_CONSOLE
    assert trial.reason.startswith(f"a guest answers, but its console is not written to {paths.state}/")


def test_a_machine_that_dies_is_refused_with_its_console(paths: Paths, daemon: Daemon) -> None:
    def begin(machine: Machine) -> None:
        machine.word, machine.said = "", "Kernel panic"
        machine.listen(machine.port)
        machine.runs = False

    daemon.begin = begin
    trial = start(daemon, paths)
    assert trial == Trial(Outcome.REFUSED, "the machine ended by itself; its console ends: Kernel panic")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (initramfs.NO_DEVICE, "no byte was asked for: the kernel at hand has no driver for the network device"),
        ("a kernel", "the guest did not answer within 0 s; its console ends: a kernel"),
    ],
)
def test_a_guest_that_cannot_answer_proves_no_more_than_that_passt_runs(
    paths: Paths, daemon: Daemon, said: str, reason: str
) -> None:
    def begin(machine: Machine) -> None:
        machine.word, machine.said = "", said
        machine.listen(machine.port)

    daemon.begin = begin
    started = "libvirt starts a machine, and passt opens its port on 127.0.0.1"
    assert start(daemon, paths) == Trial(Outcome.STARTED, f"{started}, but {reason}")


def test_without_a_kernel_it_is_seen_whether_passt_can_be_started(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_paths: Paths) -> Kernel:
        raise initramfs.NoKernel("there is no guest image yet")

    monkeypatch.setattr(initramfs, "find_kernel", none)
    assert start(daemon, paths) == Trial(
        Outcome.STARTED,
        "libvirt starts a machine, and passt opens its port on 127.0.0.1, but no byte was asked for: "
        "there is no guest image yet",
    )


def test_a_daemon_that_goes_away_says_nothing_of_passt(paths: Paths, daemon: Daemon) -> None:
    daemon.refusal, daemon.is_alive = "cannot read", False
    with pytest.raises(NoLibvirt, match="libvirt went away while the network was proved"):
        start(daemon, paths)


def test_without_a_busybox_there_is_no_byte_to_ask_for(
    paths: Paths, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> KernelBoot:
        raise LabError("no static busybox on this host")

    monkeypatch.setattr(initramfs, "write", none)
    assert start(daemon, paths).reason.endswith("no byte was asked for: no static busybox on this host")
