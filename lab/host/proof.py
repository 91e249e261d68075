"""Which network prepares images on this host: passt, or QEMU's own where passt is refused.

It is tried with a machine that libvirt starts and whose processor stands still. Before the first instruction
libvirt has opened the lane's files, started passt and had virtlogd open the console, so whatever is refused was
refused by then. Whether packets go through, the first lane shows.
"""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import libvirt
import psutil

from lab.base import scratch
from lab.base.errors import LabError
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.host import rule
from lab.host.denials import PASST, HostLog, rule_for
from lab.images import store
from lab.machine import domain, leftovers, network, overlay, ports
from lab.machine.connection import NoLibvirt
from lab.machine.domain import DomainSpec, FirmwareBoot, Network
from lab.machine.network import Verdict

FOLDER = "network-proof-"
MEMORY_MIB = 32
# Longer than another lab's proof takes.
LOCK_SECONDS = 600.0
LOGS = "see the logs of libvirt, and what AppArmor or SELinux denied: dmesg, /var/log/audit/audit.log"
# libvirt's words for a program that it started and that failed, with its command line in parentheses.
CHILD = re.compile(
    r"Child process \((?:\S*/)?(\S+)[^)]*\) unexpected (fatal signal|exit status) (\d+)(.*)", re.S
)
NAMES = {Network.PASST: "passt", Network.QEMU: "QEMU's own user network"}


def prove(
    connection: libvirt.virConnect,
    paths: Paths,
    *,
    kvm: bool,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Verdict:
    """Return the verdict that holds; without one, try passt, then QEMU's own network, and keep what was seen.

    `say` may raise to end the wait for another lab. `tell` gets a new verdict against passt, with what would
    allow it. Raises LabError if nothing can be tried, and NoLibvirt if the daemon goes away.
    """
    paths.make(paths.cache)
    with locked(paths.network.with_suffix(".lock"), LOCK_SECONDS, "the network to be tried", say):
        if known := network.cached(connection, paths):
            return known
        found = _find_out(connection, paths, kvm=kvm)
        network.keep(paths, found)
    if found.network is Network.QEMU:
        tell(f"{found.instead}\n  next: {mend(found, paths)}")
    return found


def mend(verdict: Verdict, paths: Paths) -> str:
    """What to do where something was refused: the rule that allows it, or the logs that say what it was."""
    if verdict.rule:
        return f"./setup.sh --allow={verdict.rule} doctor adds this rule: {rule.show(verdict.rule, paths)}"
    if not verdict.unread:
        return LOGS
    said = f"this user may not read what may say why: {'; '.join(verdict.unread)}"
    if verdict.network is Network.QEMU and rule.passt_lacks_it(paths):
        said += (
            f"\nif AppArmor denied it, ./setup.sh --allow={PASST} doctor may mend it; "
            f"it adds this rule: {rule.show(PASST, paths)}"
        )
    return said


def _find_out(connection: libvirt.virConnect, paths: Paths, *, kvm: bool) -> Verdict:
    with HostLog() as log:
        refused = _refusal(connection, paths, Network.PASST, kvm=kvm)
        denied = log.denials() if refused else []
        unread = log.unread() if refused and not denied else []
    verdict = Verdict(
        key=network.key(connection, paths),
        network=Network.PASST,
        proved=refused or "libvirt starts a machine, and passt opens its port on 127.0.0.1",
        denials=denied,
        unread=unread,
        rule=rule_for(denied),
    )
    if refused:
        without_passt = _refusal(connection, paths, Network.QEMU, kvm=kvm)
        if without_passt:
            verdict.key = ""
            verdict.proved = f"with passt: {refused}; with QEMU's own network: {without_passt}"
        else:
            verdict.network = Network.QEMU
    return verdict


def _refusal(connection: libvirt.virConnect, paths: Paths, with_: Network, *, kvm: bool) -> str:
    """Start a machine with this network and remove it: why it was refused, empty if it was not.

    Raises LabError, NoLibvirt, LeftBehind.
    """
    port = ports.reserve(paths.make(paths.ports))
    name = f"lab-{FOLDER}{os.getpid()}-{with_}"
    machine: libvirt.virDomain | None = None
    try:
        with scratch.make_in(paths.make(paths.state), FOLDER) as folder:
            folder.chmod(0o711)
            spec = DomainSpec(
                name=name,
                lane=name,
                kvm=kvm,
                memory_mib=MEMORY_MIB,
                cpus=1,
                boot=FirmwareBoot(),
                console=folder / "console.log",
                disk=_make_disk(paths, folder),
                port=port.number,
                network=with_,
            )
            flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
            try:
                machine = connection.createXML(domain.to_xml(spec), flags)
                return _misbound(port.number, NAMES[with_])
            except libvirt.libvirtError as error:
                if not connection.isAlive():
                    raise NoLibvirt(f"libvirt went away while the network was tried: {error}") from error
                return told(error)
            finally:
                _remove(machine, name, connection, port.number)
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        port.release()


def _make_disk(paths: Paths, folder: Path) -> Path | None:
    """An overlay on an image of the store, which may be denied, too. None: no image is stored."""
    disk = folder / "overlay.qcow2"
    with suppress(LabError):  # An image that cannot be read says nothing of the network.
        if image := store.any_image(paths):
            overlay.create(disk, image.disk)
            return disk
    return None


def _misbound(port: int, what: str) -> str:
    """What is wrong with the port's address; empty if it is open on 127.0.0.1 and nowhere else."""
    listening = {
        each.laddr[0]
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr[1] == port
    }
    if not listening:
        return f"nothing listens on 127.0.0.1:{port}: {what} does not run"
    if listening != {"127.0.0.1"}:
        return f"the port is open on {', '.join(sorted(listening))}, and not on 127.0.0.1 alone"
    return ""


def _remove(machine: libvirt.virDomain | None, name: str, connection: libvirt.virConnect, port: int) -> None:
    """End the machine, also where its daemon is gone. Raises LeftBehind."""
    if machine is None:
        return
    try:
        machine.destroy()
    except libvirt.libvirtError:
        leftovers.end_machine(name, connection.getURI(), port)


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
