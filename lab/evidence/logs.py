"""Reading a folder of evidence, whose files a guest or another host may have made: its logs and audit lines."""

import re
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG

from lab.base.errors import LabError
from lab.base.files import bounded, plain

MISSING = "there is no such file"


def why_not(folder: Path, name: str | Path) -> str:
    """Why a file is not read; empty if it is a regular file in `folder`, with no link on the way to it."""
    try:
        path, whole = folder / name, folder.resolve()
        kind = path.lstat().st_mode
        if path.resolve() != whole / name or not path.resolve().is_relative_to(whole):
            return "it is not inside the folder, or a link leads to it"
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except (OSError, ValueError) as error:
        return str(error)
    return "" if S_ISREG(kind) else "it is not a regular file"


def read_text(folder: Path, name: str | Path) -> str:
    """Read a file of evidence; empty if it was not gathered. Raises LabError if it must not be read."""
    why = why_not(folder, name)
    if why == MISSING:
        return ""
    try:
        if not why:
            return (folder / name).read_text(errors="replace")
    except OSError as error:
        why = str(error.strerror)
    raise LabError(
        f"{folder / name} is not read: {why}", hint="look at what is in its place; run the cell again"
    )


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of evidence whose paths match a pattern, by name; whatever must not be read is left out."""
    return [path for path in sorted(folder.glob(pattern)) if not why_not(folder, path.relative_to(folder))]


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


# `__oom_kill_process` in Linux's mm/oom_kill.c. Where only a control group had no memory left, the message is
# "Memory cgroup out of memory".
KILLED = re.compile(
    r"^(?:\[ *\d+\.\d+\] )?Out of memory(?: \(oom_kill_allocating_task\))?: "
    r"Killed process \d+ \((.{1,64}?)\) total-vm:",
    re.MULTILINE,
)
MOST_NAMES = 5


def killed_for_memory(folder: Path) -> list[str]:
    """The names of these programs, each once; at most five."""
    found = dict.fromkeys(bounded(plain(name), 40) for name in KILLED.findall(read_text(folder, KERNEL_FILE)))
    return list(found)[:MOST_NAMES]
