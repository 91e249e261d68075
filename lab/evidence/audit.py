"""The audit lines of a cell's logs: reading their fields, and finding those that tell of a refusal."""

import re
from collections.abc import Iterable
from pathlib import Path

from lab.evidence.files import read_text

KERNEL_FILE = "kernel.log"
AUDIT_FILE = "audit.log"

# How an audit line begins in the kernel's log, and in the audit daemon's. The same words inside a line prove
# nothing: the kernel logs words of an ordinary user, for example the name of an unknown mount option.
BEGINS = re.compile(r"(?:\[[^\]]*\] ?)*audit: type=\d+ audit\(|(?:node=\S+ )?type=\S+ msg=audit\(")
# key="value" or key=value. A word is tried once, as a whole: a long line without any = takes no longer.
PAIR = re.compile(r'\b(\w++)=(?:"([^"]*)"|(\S+))')
# What SELinux denied: avc:  denied  { create } for ...
AVC = re.compile(r"avc:\s+denied\s+\{ ([^{}]*) \}")


def parse_audit(log: str) -> list[dict[str, str]]:
    """Read the audit lines of a log of the kernel or of the audit daemon, each as its fields.

    Format: Documentation of the Linux audit project. The line of a denial by SELinux has no key for the denied
    permissions: they are under `avc`.
    """
    return [_fields(line) for line in _audit_lines(log)]


def refusals(folder: Path, files: Iterable[str] = (KERNEL_FILE, AUDIT_FILE)) -> dict[str, list[str]]:
    """The audit lines that tell of a refusal, unchanged, by the name of the file in the cell's folder.

    Raises LabError if one of the files cannot be read.
    """
    found: dict[str, list[str]] = {}
    for name in files:
        if lines := [line for line in _audit_lines(read_text(folder, name)) if tells_of_refusal(line)]:
            found[name] = lines
    return found


def tells_of_refusal(line: str) -> bool:
    """Whether a line of a log tells that AppArmor or SELinux refused something.

    A profile in complain mode also refuses, with EACCES, a path that it cannot resolve to a name.
    """
    fields = _fields(line)
    denied = "avc" in fields and fields.get("permissive") != "1"
    return denied or fields.get("apparmor") == "DENIED" or fields.get("error") == "-13"


def _audit_lines(log: str) -> list[str]:
    return [line for line in log.splitlines() if BEGINS.match(line)]


def _fields(line: str) -> dict[str, str]:
    fields = {key: quoted or bare for key, quoted, bare in PAIR.findall(line)}
    if denied := AVC.search(line):
        fields["avc"] = denied[1]
    return fields
