"""A tiny guest, started through libvirt as a lane is, to see how far it comes on this host."""

import os
import re
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import libvirt
import psutil

from lab.base import scratch
from lab.base.errors import LabError
from lab.base.files import plain
from lab.base.paths import Paths
from lab.base.wait import Deadline
from lab.host import initramfs
from lab.machine import domain, leftovers, overlay, ports
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.machine.domain import DomainSpec, FirmwareBoot, KernelBoot, Network

FOLDER = "network-proof-"
MEMORY_MIB = 512
# A kernel boots in 1 s under KVM. Under emulation it took 10 s on an idle host and 60 s on a busy one.
BOOT_SECONDS = 20.0
# How long a guest that listens may take to answer, whatever the host's speed.
ANSWER_SECONDS = 30.0
CONNECT_SECONDS = 5.0
# virtlogd may write to the console a moment after the guest answered.
CONSOLE_SECONDS = 5.0
# libvirt's words for a program that it started and that failed, with its command line in parentheses.
CHILD = re.compile(
    r"Child process \((?:\S*/)?(\S+)[^)]*\) unexpected (fatal signal|exit status) (\d+)(.*)", re.S
)


class Outcome(StrEnum):
    PROVED = "proved"
    # It went as far as can be tried here.
    STARTED = "started"
    REFUSED = "refused"
    # The machine and its network run, but the console is not written.
    NO_CONSOLE = "no console"


@dataclass(frozen=True)
class Trial:
    """What became of one tiny guest. `reason` says what was seen."""

    outcome: Outcome
    reason: str


def start(connection: libvirt.virConnect, paths: Paths, how: Acceleration, with_: Network) -> Trial:
    """Start one tiny guest, see how far it comes, and remove it. Raises LabError, NoLibvirt, LeftBehind."""
    port = ports.reserve(paths.make(paths.ports))
    try:
        with scratch.make_in(paths.make(paths.state), FOLDER) as folder:
            folder.chmod(0o711)
            guest = _Guest(connection, folder, port.number, with_, how)
            try:
                return guest.run(paths)
            except libvirt.libvirtError as error:
                if not connection.isAlive():
                    raise NoLibvirt(f"libvirt went away while the network was proved: {error}") from error
                return Trial(Outcome.REFUSED, told(error))
            finally:
                guest.remove()
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        port.release()


class _Guest:
    """One tiny guest, from its start to its end."""

    def __init__(
        self, connection: libvirt.virConnect, folder: Path, port: int, with_: Network, how: Acceleration
    ) -> None:
        self._connection, self._folder, self._port, self._network = connection, folder, port, with_
        self._how = how
        self._name = f"lab-network-proof-{os.getpid()}-{with_}"
        self._console = folder / "console.log"
        self._word = secrets.token_hex(8)
        self._machine: libvirt.virDomain | None = None

    def run(self, paths: Paths) -> Trial:
        spec, lacking = self._spec(paths)
        self._machine = self._connection.createXML(domain.to_xml(spec), libvirt.VIR_DOMAIN_START_AUTODESTROY)
        if problem := self._misbound():
            return Trial(Outcome.REFUSED, problem)
        if lacking:
            return Trial(Outcome.STARTED, f"{self._started}, but no byte was asked for: {lacking}")
        return self._watch()

    def _spec(self, paths: Paths) -> tuple[DomainSpec, str]:
        """The machine, and what it lacks to answer; empty if it should."""
        boot: KernelBoot | FirmwareBoot
        disk, lacking = None, ""
        try:
            kernel = initramfs.find_kernel(paths)
            boot = initramfs.write(kernel, self._folder / "initrd", self._word)
            if kernel.disk:
                disk = self._folder / "overlay.qcow2"
                overlay.create(disk, kernel.disk)
        except LabError as error:
            boot, lacking = FirmwareBoot(), str(error.args[0])
        spec = DomainSpec(
            name=self._name,
            lane=self._name,
            kvm=self._how.kvm,
            memory_mib=MEMORY_MIB,
            cpus=1,
            boot=boot,
            console=self._console,
            disk=disk,
            port=self._port,
            network=self._network,
        )
        return spec, lacking

    @property
    def _what(self) -> str:
        return "passt" if self._network is Network.PASST else "QEMU's own user network"

    @property
    def _started(self) -> str:
        return f"libvirt starts a machine, and {self._what} opens its port on 127.0.0.1"

    def _misbound(self) -> str:
        """What is wrong with the port's address; empty if it is open on 127.0.0.1 and nowhere else."""
        listening = {
            each.laddr[0]
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == self._port
        }
        if not listening:
            return f"nothing listens on 127.0.0.1:{self._port}: {self._what} does not run"
        if listening != {"127.0.0.1"}:
            return f"the port is open on {', '.join(sorted(listening))}, and not on 127.0.0.1 alone"
        return ""

    def _watch(self) -> Trial:
        boot = Deadline(BOOT_SECONDS * self._how.speed.factor, "a tiny guest")
        begun, listens_since = time.monotonic(), 0.0
        while True:
            console = self._read_console()
            if self._pull() == self._word:
                return self._answered(time.monotonic() - begun)
            if not self._runs():
                return Trial(Outcome.REFUSED, f"the machine ended by itself{_ending(console)}")
            if initramfs.NO_DEVICE in console:
                lacking = "the kernel at hand has no driver for the network device"
                return Trial(Outcome.STARTED, f"{self._started}, but no byte was asked for: {lacking}")
            if initramfs.LISTENS in console:
                listens_since = listens_since or time.monotonic()
                if time.monotonic() - listens_since > ANSWER_SECONDS:
                    late = f"no byte came through {self._what} within {ANSWER_SECONDS:.0f} s"
                    return Trial(Outcome.REFUSED, f"the guest listens, but {late}")
            elif not boot.remaining:
                late = f"the guest did not answer within {boot.seconds:.0f} s{_ending(console)}"
                if problem := self._misbound():
                    return Trial(Outcome.REFUSED, problem)
                return Trial(Outcome.STARTED, f"{self._started}, but {late}")
            time.sleep(0.25)

    def _answered(self, seconds: float) -> Trial:
        patience = Deadline(CONSOLE_SECONDS, "the console")
        while initramfs.LISTENS not in self._read_console():
            if not patience.remaining:
                said = f"a guest answers, but its console is not written to {self._console}"
                return Trial(Outcome.NO_CONSOLE, said)
            time.sleep(0.25)
        said = f"a guest answered through {self._what} on 127.0.0.1, {seconds:.0f} s after its start"
        return Trial(Outcome.PROVED, said)

    def _pull(self) -> str:
        """What the guest says to a connection; empty without an answer."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), CONNECT_SECONDS) as connected:
                return connected.recv(100).decode(errors="replace").strip()
        except OSError:
            return ""

    def _read_console(self) -> str:
        try:
            return plain(self._console.read_text(errors="replace"))
        except OSError:
            return ""

    def _runs(self) -> bool:
        assert self._machine is not None
        try:
            return bool(self._machine.state()[0] == libvirt.VIR_DOMAIN_RUNNING)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return False

    def remove(self) -> None:
        """End the machine, also where its daemon is gone. Raises LeftBehind."""
        if self._machine is None:
            return
        try:
            self._machine.destroy()
        except libvirt.libvirtError:
            leftovers.end_machine(self._name, self._connection.getURI(), self._port)


def told(error: libvirt.libvirtError) -> str:
    """Why libvirt refused, without the command line of a program that it could not start."""
    text = str(error)
    child = CHILD.search(text)
    if child is None:
        return text.strip()
    program, how, number, rest = child.groups()
    ended = f"was killed by signal {number}" if how == "fatal signal" else f"ended with status {number}"
    words = " ".join(line.strip() for line in rest.lstrip(": ").splitlines() if line.strip())
    return f"{program} {ended}" + (f": {words}" if words else "")


def _ending(console: str) -> str:
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    return f"; its console ends: {lines[-1]}" if lines else "; its console stayed empty"
