"""Whether libvirt may start the lab's machines on this host, tried with one whose processor stands still.

If not: what this host's security modules refused to QEMU and libvirt, in the words of its logs.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import libvirt

from lab.base import process
from lab.base.files import plain
from lab.base.paths import Paths
from lab.base.process import CommandFailed
from lab.causes.evidence import parse_audit, tells_of_refusal
from lab.images import store
from lab.machine import acceleration, throwaway
from lab.machine.connection import NoLibvirt

READ_LOGS = (
    "see the logs of libvirt, and what AppArmor or SELinux denied: sudo dmesg, sudo journalctl, "
    "/var/log/audit/audit.log"
)

# What prints the newest lines of the logs that may tell: the kernel's, auditd's, and systemd's journal. Which
# of them a user may read depends on the host. No two denials have the same line, because it has their time.
LOGS = (
    ("dmesg",),
    ("tail", "--lines=1000", "/var/log/audit/audit.log"),
    ("journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=1000"),
)
LOG_SECONDS = 20
# The programs and profiles of a lane's machine.
CONCERNED = re.compile(r'(?:profile|comm)="[^"]*(?:qemu|libvirt|virtlog|virtqemud|virt-aa-helper)')
CRASH = re.compile(r"\bqemu[\w.-]*\[\d+\]:? (?:segfault|general protection|trap)")
# What tells two lines of one denial or crash apart: when it was written, and by which process.
ACCIDENT = re.compile(r"audit\([^)]*\):?|\bpid=\d+|^.*?(?=apparmor=|avc:|qemu[\w.-]*\[)")
LIMIT = 10


@dataclass(frozen=True)
class Refusal:
    """Why libvirt started no machine, in its own words, and the lines of this host's logs that tell of it."""

    reason: str
    denials: Sequence[str] = ()


def prove(opened: libvirt.virConnect, paths: Paths) -> Refusal | None:
    """Start a machine with the console, the disk and the network of a lane; None if nothing was refused.

    Nothing of it is left. Raises NoLibvirt if the daemon goes away, another LabError if nothing can be tried.
    """
    # Without an image KVM was not tried.
    how = acceleration.cached(opened, paths)
    kvm = how is not None and how.kvm
    before = set(log_lines())
    try:
        with throwaway.machine(opened, paths, kvm=kvm, image=store.any_image(paths)):
            return None
    except libvirt.libvirtError as error:
        if not opened.isAlive():
            raise NoLibvirt(f"libvirt went away while a machine was tried: {error}") from error
        return Refusal(str(error).strip(), denials(line for line in log_lines() if line not in before))


def mend(refusal: Refusal, paths: Paths) -> str:
    """What to do where something was refused: the command that allows it, or the logs that may say what it was.

    virtlogd may write only to folders that have the label of libvirt's logs:
    https://github.com/fedora-selinux/selinux-policy, policy/modules/contrib/virt.te.
    """
    for fields in parse_audit("\n".join(refusal.denials)):
        if ":virtlogd_t:" in fields.get("scontext", "") and ":var_lib_t:" in fields.get("tcontext", ""):
            return f"./setup.sh --allow=consoles doctor puts the SELinux label virt_log_t on {paths.state}"
    return READ_LOGS


def log_lines() -> list[str]:
    """The newest lines of this host's logs. What this user may not read, or this host lacks, has none."""
    lines: list[str] = []
    for command in LOGS:
        with suppress(CommandFailed):
            lines += process.run(command, timeout=LOG_SECONDS).splitlines()
    return lines


def denials(lines: Iterable[str]) -> list[str]:
    """The lines that tell of a refusal or a crash of QEMU or libvirt, each once."""
    told: dict[str, str] = {}
    for line in lines:
        if CRASH.search(line) or (CONCERNED.search(line) and tells_of_refusal(line)):
            told.setdefault(" ".join(ACCIDENT.sub("", line).split()), plain(line))
    return list(told.values())[:LIMIT]
