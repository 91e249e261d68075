"""Whether libvirt may start the lab's machines on this host, tried with one whose processor stands still.

If not: what this host's security modules refused to QEMU and libvirt, in the words of its logs.
`python -m lab.machine.proof` prints the rule of setup.sh that would allow what is refused, if there is one.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import libvirt

from lab.base import process
from lab.base.errors import LabError
from lab.base.files import plain
from lab.base.paths import Paths
from lab.base.process import CommandFailed
from lab.causes.evidence import parse_audit, tells_of_refusal
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import acceleration, ports, throwaway
from lab.machine.connection import NoLibvirt, connection, default_uri

# The rules that setup.sh can add, and the name of the only one.
RULES = Path(__file__).with_name("rules.sh")
CONSOLES = "consoles"
LOGS = "see the logs of libvirt, and what AppArmor or SELinux denied: dmesg, /var/log/audit/audit.log"

KERNEL_LOG = Path("/dev/kmsg")
AUDIT_LOG = Path("/var/log/audit/audit.log")
# Longer than any record: https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg
RECORD_BYTES = 8192
JOURNAL_SECONDS = 20
# The first letter is Y where AppArmor is on.
APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
# What shows each log, and the refusals in it, to a user who may not read it.
SHOW = {
    KERNEL_LOG: "sudo dmesg | grep -i apparmor",
    AUDIT_LOG: f"sudo grep -i apparmor {AUDIT_LOG}",
}
# The programs and profiles of a lane's machine.
CONCERNED = re.compile(r'(?:profile|comm)="[^"]*(?:qemu|libvirt|virtlog|virtqemud|virt-aa-helper)')
CRASH = re.compile(r"\bqemu[\w.-]*\[\d+\]:? (?:segfault|general protection|trap)")
# What tells two lines of one denial apart: when it was written, and by which process.
ACCIDENT = re.compile(r"audit\([^)]*\):?|\bpid=\d+|^.*?(?=apparmor=|avc:)")
LIMIT = 10


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
                with throwaway.machine(opened, paths, kvm=kvm, image=_any_image(paths), port=port.number):
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


# -- the logs


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

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._kernel is not None:
            os.close(self._kernel)

    def denials(self) -> list[str]:
        """The lines that tell of a refusal or a crash of QEMU or libvirt, each denial once."""
        found: dict[str, str] = {}
        for line in (*self._kernel_lines(), *self._audit_lines(), *self._journal_lines()):
            if CRASH.search(line) or (CONCERNED.search(line) and tells_of_refusal(line)):
                found.setdefault(" ".join(ACCIDENT.sub("", line).split()), plain(line))
        return list(found.values())[:LIMIT]

    def unread(self) -> list[str]:
        """The logs that this user may not read where AppArmor is on, each with the command that shows it."""
        if not _is_on(APPARMOR):
            return []
        return [f"{log} ({show})" for log, show in SHOW.items() if _is_closed(log)]

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


def rule_for(lines: Sequence[str]) -> str:
    """The rule of setup.sh that allows what these lines deny; empty if it has none.

    virtlogd may write only to folders that have the label of libvirt's logs:
    https://github.com/fedora-selinux/selinux-policy, policy/modules/contrib/virt.te.
    """
    for fields in parse_audit("\n".join(lines)):
        if ":virtlogd_t:" in fields.get("scontext", "") and ":var_lib_t:" in fields.get("tcontext", ""):
            return CONSOLES
    return ""


def _is_on(switch: Path) -> bool:
    try:
        return switch.read_text().startswith("Y")
    except OSError:
        return False


def _is_closed(log: Path) -> bool:
    try:
        os.close(os.open(log, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        return True
    except OSError:  # There is no such log.
        pass
    return False


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    print(missing_rule())
