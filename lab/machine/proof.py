"""Whether libvirt may start the lab's machines on this host, tried with one whose processor stands still.

`python -m lab.machine.proof` prints the rule of setup.sh that would allow what is refused, if there is one.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt

from lab.base import process
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import acceleration, paused, ports
from lab.machine.connection import NoLibvirt, connection, default_uri
from lab.machine.denials import HostLog, rule_for

# The rules that setup.sh can add.
RULES = Path(__file__).with_name("rules.sh")
LOGS = "see the logs of libvirt, and what AppArmor or SELinux denied: dmesg, /var/log/audit/audit.log"


@dataclass(frozen=True)
class Refusal:
    """Why libvirt started no machine, in its own words, and the lines of this host's logs that tell of it.

    Without such lines, `unread` names the logs that the user may not read.
    """

    reason: str
    denials: Sequence[str] = ()
    unread: Sequence[str] = ()


def prove(opened: libvirt.virConnect, paths: Paths) -> Refusal | None:
    """Start a machine with the console, the disk and the network of a lane; None if nothing was refused.

    Nothing of it is left. Raises NoLibvirt if the daemon goes away, another LabError if nothing can be tried.
    """
    # Without an image KVM was not tried.
    how = acceleration.cached(opened, paths)
    kvm = how is not None and how.kvm
    port = ports.reserve(paths.make(paths.ports))
    try:
        with HostLog() as log:
            try:
                with paused.machine(opened, paths, kvm=kvm, image=_any_image(paths), port=port.number):
                    return None
            except libvirt.libvirtError as error:
                if not opened.isAlive():
                    raise NoLibvirt(f"libvirt went away while a machine was tried: {error}") from error
                denied = log.denials()
                return Refusal(str(error).strip(), denied, [] if denied else log.unread())
    finally:
        port.release()


def _any_image(paths: Paths) -> BaseImage | None:
    with suppress(LabError):  # An image that cannot be read says nothing of libvirt.
        return store.any_image(paths)
    return None


def mend(refusal: Refusal, paths: Paths) -> str:
    """What to do where something was refused: the rule that allows it, or the logs that say what it was."""
    if rule := rule_for(refusal.denials):
        return f"./setup.sh --allow={rule} doctor adds this rule: {show(rule, paths)}"
    if refusal.unread:
        return f"this user may not read what may say why: {'; '.join(refusal.unread)}"
    return LOGS


def show(rule: str, paths: Paths) -> str:
    """A rule as setup.sh would add it for these folders."""
    return process.run(["sh", RULES, "show", rule, paths.state], timeout=20).rstrip()


def missing_rule() -> str:
    """The rule that would allow what is refused; empty if there is none, or if nothing can be tried."""
    try:
        with connection(default_uri()) as opened:
            refusal = prove(opened, Paths.default())
    except (LabError, libvirt.libvirtError):
        return ""
    return rule_for(refusal.denials) if refusal else ""


if __name__ == "__main__":
    print(missing_rule())
