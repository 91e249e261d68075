"""Proves that libvirt can start a machine as a lane is one on this host: a byte comes out of a tiny guest.

What is proved by what: that libvirt started the machine shows that QEMU may run and open the lab's files, and
that passt could be started. That the port is open shows that passt lives: it accepts connections by itself. The
console shows that virtlogd may write in the lab's folder. Only a word that the guest was given, and that comes
back through the port, shows that packets go through.
"""

from collections.abc import Callable
from dataclasses import dataclass

import libvirt

from lab.base.locks import locked
from lab.base.paths import Paths
from lab.host import tiny_guest
from lab.host.denials import HostLog, rule_for
from lab.host.tiny_guest import Outcome
from lab.machine import network
from lab.machine.acceleration import Acceleration
from lab.machine.domain import Network
from lab.machine.network import Verdict

# Longer than another lab's proof takes.
LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Proof:
    """What is known of this host: a verdict, or else why it could not be tried (`reason`)."""

    verdict: Verdict | None
    reason: str = ""


def prove(
    connection: libvirt.virConnect,
    paths: Paths,
    how: Acceleration,
    say: Callable[[str], None] = lambda text: None,
) -> Proof:
    """Start a tiny guest with passt, and with QEMU's own network if that is refused; keep the verdict.

    A verdict that still holds is returned as it is. `say` may raise to end the wait for another lab.
    Raises LabError if nothing can be tried, and NoLibvirt if the daemon goes away.
    """
    paths.make(paths.cache)
    with locked(paths.network.with_suffix(".lock"), LOCK_SECONDS, "the network to be proved", say):
        known = network.cached(connection, paths)
        return Proof(known) if known else _prove(connection, paths, how)


def _prove(connection: libvirt.virConnect, paths: Paths, how: Acceleration) -> Proof:
    with HostLog() as log:
        first = tiny_guest.start(connection, paths, how, Network.PASST)
        if first.outcome is Outcome.STARTED:
            return Proof(None, first.reason)
        denied = log.denials() if first.outcome is not Outcome.PROVED else []
        unread = log.unread() if first.outcome is not Outcome.PROVED and not denied else []
    verdict = Verdict(
        key=network.key(connection, paths),
        network=Network.PASST,
        proved=first.reason,
        denials=denied,
        unread=unread,
        rule=rule_for(denied),
    )
    if first.outcome is Outcome.NO_CONSOLE:
        verdict.key = ""
    elif first.outcome is Outcome.REFUSED:
        second = tiny_guest.start(connection, paths, how, Network.QEMU)
        if second.outcome in (Outcome.PROVED, Outcome.STARTED):
            verdict.network, verdict.proved = Network.QEMU, f"{first.reason}; {second.reason}"
        else:
            verdict.key = ""
            verdict.proved = f"with passt: {first.reason}; with QEMU's own network: {second.reason}"
    network.keep(paths, verdict)
    return Proof(verdict)
