"""A cell's evidence as the rules of the causes see it. A guest may have made the files that it is read from."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from lab.base.data import SMALL_FILE, parse_json
from lab.base.errors import LabError, format_error
from lab.base.files import clean_text, cut_text, open_regular, read_regular
from lab.probes import NONE_RUN, ProbedUser, Probes
from lab.probes.facts import STACKED, ContainerEngine, LimitFacts, parse_label
from lab.record import BoxGroups, Outcome, TestResult

KERNEL_FILE = "kernel.log"
AUDIT_FILE = "audit.log"
PROBES_FILE = "probes.json"
# What the script for users prints, which says what the probes and the facts say: see `lab.probes.script`.
SCRIPT_FILE = "host-probe.txt"
SYSCTLS_FILE = "sysctls.txt"
# The modes of boxlite's programs: see `lab/guest/remote/collect.py`.
MODES_FILE = "modes.txt"
MODE = re.compile(r"^([0-7]{4}) (.+)$", re.MULTILINE)
# boxlite's own logs, what a box wrote to standard error, and how its shim ended, which boxlite 0.10 writes into
# `exit` and later moves to `exit.previous`; how many files of each kind are read, and how much of a file: every
# box that is blocked has the same.
LOGS = ("boxlite/*/logs/boxlite.log*", "boxlite/*/boxes/*/shim.stderr", "boxlite/*/boxes/*/exit*")
MOST_LOGS = 20
LOG_BYTES = 2_000_000
# Of any other file: no guest sends a larger one.
MOST_BYTES = 16 << 20
MISSING = "there is no such file"
# What boxlite starts for each box, and signal(7) that ends it for a system call that a filter does not allow.
SHIM, SIGSYS = "boxlite-shim", "31"


@dataclass(frozen=True)
class Evidence:
    """What was gathered of one cell. `audit` holds the kernel's audit lines since the cell began.

    `container` is what started the container in which the suite and the probes ran; None if they ran in none.
    `profile` is the AppArmor profile that confined the suite and the probes, or several joined by `//&`; None
    if they ran unconfined. `messages` are those of the tests that did not pass; `control_failed`: whether the
    control is one of them, None if it did not run or was skipped. `logs` are boxlite's own, what its boxes
    wrote to standard error, and how their shims ended. `programs` are those whose denials count: bubblewrap,
    and in a bug report another program that is blocked. `modes` are the permission bits of boxlite's programs,
    by path below the user's home: as boxlite unpacked them, and as it copied them beside its boxes. `boxlite`
    is the version of the build, empty if nobody knows it. `groups` are the control groups that tests which did
    not pass recorded. `limits` are those of the suite's user; None if nobody read them.
    """

    probes: Probes = NONE_RUN
    sysctls: dict[str, str] = field(default_factory=dict)
    audit: list[dict[str, str]] = field(default_factory=list)
    profile: str | None = None
    container: ContainerEngine | None = None
    messages: tuple[str, ...] = ()
    control_failed: bool | None = None
    programs: tuple[str, ...] = ("bwrap",)
    logs: tuple[str, ...] = ()
    modes: dict[str, int] = field(default_factory=dict)
    boxlite: str = ""
    groups: tuple[BoxGroups, ...] = ()
    limits: LimitFacts | None = None

    @property
    def profiles(self) -> tuple[str, ...]:
        """The AppArmor profiles that confined the suite and the probes."""
        return tuple(self.profile.split(STACKED)) if self.profile else ()

    @property
    def service(self) -> dict[str, str]:
        """What restricts the systemd service that the suite and the probes ran in, by systemd's names."""
        return self.probes.service_unrestricted.settings

    def says(self, text: str) -> bool:
        """Whether the message of a test that did not pass holds this text."""
        return any(text in message for message in self.messages)

    def boxlite_says(self, text: str) -> bool:
        """Whether boxlite said this text, to its caller or in its log."""
        return self.says(text) or any(text in log for log in self.logs)

    def bubblewrap_says(self, text: str) -> bool:
        """Whether bubblewrap failed with this text: the host's, or boxlite's own, as boxlite says."""
        bwrap = self.probes.bwrap_user
        return bwrap.failed_with(text) or (bwrap.status is None and self.boxlite_says(text))

    @property
    def said(self) -> tuple[str, ...]:
        """What boxlite said, to its caller and in its logs, and bubblewrap in the probes."""
        bwrap = (self.probes.bwrap_user, self.probes.bwrap_all)
        return (*self.messages, *self.logs, *(probe.stderr for probe in bwrap if probe.failed))

    def own(self, lines: Iterable[dict[str, str]]) -> list[dict[str, str]]:
        """The audit lines of bubblewrap itself: only these say what stopped it.

        Ubuntu's kernel also logs lines of boxlite's thread and of the probe `unshare`, even where bubblewrap
        works.
        """
        return [line for line in lines if line.get("comm") in self.programs]

    def denied(self, **fields: str) -> list[dict[str, str]]:
        """AppArmor's denials that have all the given fields."""
        fields["apparmor"] = "DENIED"
        return [line for line in self.audit if fields.items() <= line.items()]

    @property
    def shims_ended(self) -> list[dict[str, str]]:
        """The kernel's lines about shims that a filter of system calls ended."""
        lines = [line for line in self.audit if line.get("sig") == SIGSYS]
        return [line for line in lines if SHIM in (line.get("comm"), line.get("exe", "").rpartition("/")[2])]

    def avc_denied(self, permission: str, **fields: str) -> list[dict[str, str]]:
        """SELinux's denials of a permission that have all the given fields."""
        lines = [line for line in self.audit if fields.items() <= line.items()]
        return [line for line in lines if permission in line.get("avc", "").split()]


def read_evidence(folder: Path, tests: Sequence[TestResult] = (), *, control: str = "") -> Evidence:
    """Read the evidence in a cell's folder; files that were not gathered leave their part of it empty.

    `tests` are the results of the cell's suite, `control` is the name of the test that needs no sandbox. Raises
    LabError if the file of the probes is damaged, or a file cannot be read.
    """
    outcome = next((test.outcome for test in tests if test.name == control), Outcome.NOT_RUN)
    logs = [log for kind in LOGS for log in find_matching_files(folder, kind)[:MOST_LOGS]]
    stored = None
    if explain_unreadable(folder, PROBES_FILE) != MISSING:
        try:
            stored = ProbedUser.model_validate(parse_json(read_evidence_text(folder, PROBES_FILE, SMALL_FILE)))
        except ValueError as error:
            raise LabError(
                f"{folder / PROBES_FILE} cannot be read: {format_error(error)}",
                hint="run the cell again to gather its evidence again",
            ) from error
    return Evidence(
        probes=stored.probes if stored else NONE_RUN,
        sysctls=parse_sysctls(read_evidence_text(folder, SYSCTLS_FILE)),
        audit=parse_audit(read_evidence_text(folder, KERNEL_FILE) + read_evidence_text(folder, AUDIT_FILE)),
        profile=parse_confining_profile(stored.context.apparmor) if stored else None,
        container=stored.container if stored else None,
        messages=tuple(test.message for test in tests if test.outcome is not Outcome.PASS),
        control_failed=None if outcome in (Outcome.NOT_RUN, Outcome.SKIP) else outcome.is_failure,
        logs=tuple(map(read_beginning, logs)),
        modes={line[2]: int(line[1], 8) for line in MODE.finditer(read_evidence_text(folder, MODES_FILE))},
        limits=stored.context.limits if stored else None,
        groups=tuple(test.groups for test in tests if test.groups and test.outcome is not Outcome.PASS),
    )


def read_beginning(file: Path, most: int = LOG_BYTES) -> str:
    """Read at most so many bytes of a file that `find_matching_files` found. Raises OSError."""
    with open_regular(file) as stream:
        return stream.read(most).decode(errors="replace")


def parse_sysctls(text: str) -> dict[str, str]:
    """Read `name = value` lines, as `sysctl --all` prints them."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_confining_profile(label: str | None) -> str | None:
    """Return the profile that a process's AppArmor label names, or None if it does not confine the process."""
    parsed = parse_label(label)
    return STACKED.join(parsed.profiles) if parsed.confines else None


def explain_unreadable(folder: Path, name: str | Path) -> str:
    """Why a file is not read; empty if it is a regular file in `folder`, with no link on the way to it."""
    try:
        path, real_folder = folder / name, folder.resolve()
        kind = path.lstat().st_mode
        if path.resolve() != real_folder / name or not path.resolve().is_relative_to(real_folder):
            return "it is not inside the folder, or a link leads to it"
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except (OSError, ValueError) as error:
        return str(error)
    return "" if S_ISREG(kind) else "it is not a regular file"


def read_evidence_text(folder: Path, name: str | Path, most: int = MOST_BYTES) -> str:
    """Read a file of evidence; empty if it was not gathered.

    Raises LabError if it must not be read, or is larger than `most` bytes.
    """
    reason = explain_unreadable(folder, name)
    if reason == MISSING:
        return ""
    try:
        if not reason:
            return read_regular(folder / name, most).decode(errors="replace")
    except OSError as error:
        reason = str(error.strerror)
    raise LabError(
        f"{folder / name} is not read: {reason}", hint="look at what is in its place; run the cell again"
    )


def find_matching_files(folder: Path, pattern: str) -> list[Path]:
    """The files of evidence whose paths match a pattern, by name; whatever must not be read is left out."""
    try:
        matches = sorted(folder.glob(pattern))
    except ValueError:  # No path can hold the name of such a folder.
        return []
    return [path for path in matches if not explain_unreadable(folder, path.relative_to(folder))]


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


def find_refusals(folder: Path, files: Iterable[str] = (KERNEL_FILE, AUDIT_FILE)) -> dict[str, list[str]]:
    """The audit lines that tell of a refusal, unchanged, by the name of the file in the cell's folder.

    Raises LabError if one of the files cannot be read.
    """
    by_file: dict[str, list[str]] = {}
    for name in files:
        if lines := [line for line in _audit_lines(read_evidence_text(folder, name)) if tells_of_refusal(line)]:
            by_file[name] = lines
    return by_file


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


def find_killed_programs(folder: Path) -> list[str]:
    """The names of these programs, each once; at most five."""
    names = dict.fromkeys(
        cut_text(clean_text(name), 40) for name in KILLED.findall(read_evidence_text(folder, KERNEL_FILE))
    )
    return list(names)[:MOST_NAMES]
