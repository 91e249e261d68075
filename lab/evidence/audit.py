"""The audit lines of a cell's logs: reading their fields, and finding those that tell of a refusal."""

import re
from collections.abc import Iterable
from pathlib import Path

from lab.evidence.files import read_text

KERNEL_FILE = "kernel.log"
AUDIT_FILE = "audit.log"

# key="value" or key=value.
PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')
# What SELinux denied: avc:  denied  { create } for ...
AVC = re.compile(r"avc:\s+denied\s+\{ ([^}]*) \}")
# A refusal. A profile in complain mode also refuses, with EACCES, a path that it cannot resolve to a name.
REFUSAL = re.compile(r'apparmor="DENIED"|avc:\s+denied(?!.*\bpermissive=1\b)|error=-13\b')


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
        if lines := [line for line in _audit_lines(read_text(folder, name)) if REFUSAL.search(line)]:
            found[name] = lines
    return found


def _audit_lines(log: str) -> list[str]:
    return [line for line in log.splitlines() if "audit(" in line]


def _fields(line: str) -> dict[str, str]:
    fields = {key: quoted or bare for key, quoted, bare in PAIR.findall(line)}
    if denied := AVC.search(line):
        fields["avc"] = denied[1]
    return fields
