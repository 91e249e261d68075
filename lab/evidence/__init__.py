"""A cell's evidence as the rules see it, read from the files of the cell's folder."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab.record import Outcome, TestResult

PROBES_FILE = "probes.json"
KERNEL_FILE = "kernel.log"
AUDIT_FILE = "audit.log"
SYSCTLS_FILE = "sysctls.txt"

# key="value" or key=value, as the kernel's audit lines have them.
PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')
# What SELinux denied: avc:  denied  { create } for ...
AVC = re.compile(r"avc:\s+denied\s+\{ ([^}]*) \}")
# An audit line of something refused. Even in complain mode a profile refuses with EACCES what it cannot name.
REFUSAL = re.compile(r'apparmor="DENIED"|avc:\s+denied(?!.*\bpermissive=1\b)|error=-13\b')


@dataclass(frozen=True)
class Probe:
    """One probe's exit status, or errno (None where it did not run), standard error, and what was run."""

    status: int | None
    stderr: str
    command: tuple[str, ...] = ()

    @property
    def worked(self) -> bool:
        return self.status == 0

    @property
    def failed(self) -> bool:
        """Whether it ran, and did not work."""
        return self.status not in (0, None)

    def failed_with(self, text: str) -> bool:
        return self.failed and text in self.stderr


@dataclass(frozen=True)
class Evidence:
    """What was gathered of one cell. `audit` holds the kernel's audit lines since the cell began.

    `messages` are those of the tests that did not pass; `control_failed`, whether the control is one of them.
    """

    probes: dict[str, Probe] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    audit: list[dict[str, str]] = field(default_factory=list)
    # The AppArmor profile that confined the suite and the probes; none where they ran unconfined.
    profile: str | None = None
    messages: tuple[str, ...] = ()
    control_failed: bool = False

    def probe(self, name: str) -> Probe:
        return self.probes.get(name, Probe(None, "not run"))

    def avc_denied(self, permission: str, **wanted: str) -> list[dict[str, str]]:
        """SELinux's denials of a permission that have all the given fields."""
        return [
            line
            for line in self.audit
            if permission in line.get("avc", "").split()
            and all(line.get(key) == value for key, value in wanted.items())
        ]

    def says(self, text: str) -> bool:
        """Whether a test that did not pass says this, in boxlite's words."""
        return any(text in message for message in self.messages)

    def denied(self, **wanted: str) -> list[dict[str, str]]:
        """AppArmor's denials that have all the given fields."""
        return [
            line
            for line in self.audit
            if line.get("apparmor") == "DENIED" and all(line.get(key) == value for key, value in wanted.items())
        ]


def read(folder: Path, tests: Iterable[TestResult] = (), *, control: str = "") -> Evidence:
    """Read the evidence that was gathered into a cell's folder; what is not there counts as not known.

    `tests` are the results of the cell's suite, `control` the name of the one that needs no sandbox.
    """
    failed = [test for test in tests if test.outcome is not Outcome.PASS]
    return Evidence(
        probes=read_probes(folder / PROBES_FILE),
        sysctls=parse_sysctls(_text(folder / SYSCTLS_FILE)),
        audit=parse_audit(_text(folder / KERNEL_FILE) + _text(folder / AUDIT_FILE)),
        profile=_profile(folder / PROBES_FILE),
        messages=tuple(test.message for test in failed),
        control_failed=any(test.name == control for test in failed),
    )


def parse_audit(log: str) -> list[dict[str, str]]:
    """The audit lines of the kernel's log or the audit daemon's, each as its fields.

    Format: Documentation of the Linux audit project. What SELinux denied has no name in the line: it is `avc`.
    """
    return [_fields(line) for line in log.splitlines() if "audit(" in line]


def _fields(line: str) -> dict[str, str]:
    fields = {key: quoted or bare for key, quoted, bare in PAIR.findall(line)}
    if denied := AVC.search(line):
        fields["avc"] = denied[1]
    return fields


def refusals(folder: Path) -> dict[str, list[str]]:
    """The audit lines that tell of something refused, as they stand there, by the file of the cell's folder."""
    found: dict[str, list[str]] = {}
    for name in (KERNEL_FILE, AUDIT_FILE):
        audit = [line for line in _text(folder / name).splitlines() if "audit(" in line]
        if lines := [line for line in audit if REFUSAL.search(line)]:
            found[name] = lines
    return found


def parse_sysctls(text: str) -> dict[str, str]:
    """`name = value` lines, as `sysctl --all` prints them."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _profile(path: Path) -> str | None:
    context = json.loads(path.read_text())["context"]["apparmor"] if path.exists() else None
    name, _, mode = str(context or "").partition(" (")
    # A profile in unconfined mode is a name and confines nothing.
    return name if mode and mode != "unconfined)" else None


def read_probes(path: Path) -> dict[str, Probe]:
    """The probes in a file that `probe` in `lab/guest/remote/` printed; none where there is no file."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())["probes"]
    return {
        name: Probe(each["status"], each["stderr"], tuple(each.get("command", ())))
        for name, each in found.items()
    }
