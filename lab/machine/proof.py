"""Whether libvirt may start the lab's machines on this host, tried with one whose processor stands still.

If not: what this host's security modules refused to QEMU and libvirt, in the words of its logs.
`python -m lab.machine.proof` prints the rule of setup.sh that would allow what is refused, if there is one.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import libvirt

from lab.base import process
from lab.base.errors import LabError
from lab.base.files import plain
from lab.base.paths import Paths
from lab.base.process import CommandFailed
from lab.causes.evidence import parse_audit, tells_of_refusal
from lab.images import store
from lab.machine import acceleration, ports, throwaway
from lab.machine.connection import NoLibvirt, connection, default_uri

# The rules that setup.sh can add, and the name of the only one.
RULES = Path(__file__).with_name("rules.sh")
CONSOLES = "consoles"
LOGS = (
    "see the logs of libvirt, and what AppArmor or SELinux denied: sudo dmesg, sudo journalctl, "
    "/var/log/audit/audit.log"
)

KERNEL_LOG = Path("/dev/kmsg")
AUDIT_LOG = Path("/var/log/audit/audit.log")
# Longer than any record: https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg
RECORD_BYTES = 8192
JOURNAL_SECONDS = 20
# The programs and profiles of a lane's machine.
CONCERNED = re.compile(r'(?:profile|comm)="[^"]*(?:qemu|libvirt|virtlog|virtqemud|virt-aa-helper)')
CRASH = re.compile(r"\bqemu[\w.-]*\[\d+\]:? (?:segfault|general protection|trap)")
# What tells two lines of one denial apart: when it was written, and by which process.
ACCIDENT = re.compile(r"audit\([^)]*\):?|\bpid=\d+|^.*?(?=apparmor=|avc:)")
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
    with ports.reserved(paths.make(paths.ports)) as port, HostLog() as log:
        try:
            with throwaway.machine(opened, paths, kvm=kvm, image=store.any_image(paths), port=port):
                return None
        except libvirt.libvirtError as error:
            if not opened.isAlive():
                raise NoLibvirt(f"libvirt went away while a machine was tried: {error}") from error
            return Refusal(str(error).strip(), log.denials())


def mend(refusal: Refusal, paths: Paths) -> str:
    """What to do where something was refused: the rule that allows it, or the logs that may say what it was."""
    rule = rule_for(refusal.denials)
    return f"./setup.sh --allow={rule} doctor adds this rule: {show(rule, paths)}" if rule else LOGS


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


def rule_for(lines: Sequence[str]) -> str:
    """The rule of setup.sh that allows what these lines deny; empty if it has none.

    virtlogd may write only to folders that have the label of libvirt's logs:
    https://github.com/fedora-selinux/selinux-policy, policy/modules/contrib/virt.te.
    """
    for fields in parse_audit("\n".join(lines)):
        if ":virtlogd_t:" in fields.get("scontext", "") and ":var_lib_t:" in fields.get("tcontext", ""):
            return CONSOLES
    return ""


class HostLog:
    """The logs of this host from the start of a block on: the kernel's, that of auditd, and systemd's journal.

    Which of them a user may read depends on the host. What cannot be read has no lines.
    """

    def __enter__(self) -> Self:
        self._since = time.time()
        self._audit = _size(AUDIT_LOG)
        try:
            self._kernel: int | None = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._kernel, 0, os.SEEK_END)
        except OSError:
            self._kernel = None
        return self

    def __exit__(self, *_error: object) -> None:
        if self._kernel is not None:
            os.close(self._kernel)

    def denials(self) -> list[str]:
        """The lines that tell of a refusal or a crash of QEMU or libvirt, each denial once."""
        denials: dict[str, str] = {}
        for line in (*self._kernel_lines(), *self._audit_lines(), *self._journal_lines()):
            if CRASH.search(line) or (CONCERNED.search(line) and tells_of_refusal(line)):
                denials.setdefault(" ".join(ACCIDENT.sub("", line).split()), plain(line))
        return list(denials.values())[:LIMIT]

    def _kernel_lines(self) -> Iterator[str]:
        while self._kernel is not None:
            try:
                record = os.read(self._kernel, RECORD_BYTES)
            except OSError:  # That was all, or older records were overwritten.
                return
            # Priority, number, time and flags; the text; further lines with details.
            yield record.decode(errors="replace").partition(";")[2].split("\n")[0]

    def _audit_lines(self) -> list[str]:
        try:
            with AUDIT_LOG.open(errors="replace") as log:
                # auditd may have begun a new file.
                log.seek(self._audit if self._audit <= _size(AUDIT_LOG) else 0)
                return log.read().splitlines()
        except OSError:
            return []

    def _journal_lines(self) -> list[str]:
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--since=@{self._since:.0f}"]
        try:
            return process.run(command, timeout=JOURNAL_SECONDS).splitlines()
        except CommandFailed:
            return []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    print(missing_rule())
