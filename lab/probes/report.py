"""Reading what the probe script printed on a user's host, out of a longer text such as a bug report."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pydantic import Field, ValidationError

from lab.base.errors import UsageError, one_line
from lab.base.files import bounded, plain
from lab.probes import script
from lab.probes.facts import Answer, Facts, Probe, Probes, Who
from lab.probes.script import program

# A status, or none with the number of the error that kept the command from starting; then a text.
OUTCOME = re.compile(r"(?:none(?: errno (\d{1,4}))?|(\d{1,4}))(?: (.*))?", re.DOTALL)
# Shells add the number of a signal to this.
SIGNALLED = 128


def outcomes(text: Callable[[str], str]) -> dict[str, Any]:
    """Return the fields of `Probes`; `text` gives the value of a line by its name."""
    found = {name: text(f"probes.{name}") for name in Probes.model_fields}
    commands = program("probe")["PROBES"]
    return {
        name: _command(value, commands[name]) if name in commands else _call(name, value)
        for name, value in found.items()
    }


def _command(value: str, command: list[str]) -> Probe:
    status, error, text = _split(value)
    if error is not None:
        text = str(OSError(error, os.strerror(error), command[0]))
    if status is not None and status > SIGNALLED:
        status = SIGNALLED - status
    return Probe(status=status, stderr=text, command=tuple(command))


def _call(name: str, value: str) -> Probe:
    status, _, text = _split(value)
    home_script = f"~/{program('probe')['PROGRAM']}"
    kvm, mounts = str(program("facts")["KVM"]), program("probe")["MOUNTS"]
    command, about = {
        "open_kvm": (("open", kvm), kvm),
        "unshare_nothing": (("unshare(0)",), ""),
        "proc_unmasked": ((mounts,), None),
        "exec_home": ((home_script,), home_script),
        "home_allows_exec": (("statvfs", "~"), None),
    }[name]
    if status and about is not None:
        words = os.strerror(status)
        text = str(OSError(status, words, about)) if about else words
    if status and name == "home_allows_exec":
        text = "noexec"
    return Probe(status=status, stderr=text, command=command)


def _split(value: str) -> tuple[int | None, int | None, str]:
    """Return the status, the error that kept a command from starting, and the text."""
    parts = OUTCOME.fullmatch(value)
    if parts is None:
        return None, None, value
    error, status, text = parts.groups()
    return _number(status), _number(error), (text or "").strip()


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


# Lines of one output that are read, and characters of one value: far more than the script prints.
MOST_LINES, LONGEST = 2000, 10_000
# A match starts with the first of several `=`: a search that started at each of them would be quadratic.
MARK = r"(?<!=)={2,}+ ?"
BEGIN = re.compile(rf"{MARK}{script.BEGIN} (\d{{1,4}})\b")
END = re.compile(rf"{MARK}{script.END} \d{{1,4}}: (\d{{1,5}}) lines")
NUMBERED = re.compile(r"(\d{1,5}) (?:([\w./-]+):|\+)(?: |$)(.*)", re.ASCII)
# What mail programs put before the lines that they quote.
QUOTE_MARKS = " \t>|"
# What programs make of plain characters. The script prints none of these itself, and no backslash.
UNDONE = str.maketrans({"–": "--", "—": "--", "‑": "-", "…": "...", "\u00a0": " ", "\\": None})
HINT = (
    f"ask for the whole output, from the line `===== {script.BEGIN}` to the line `===== {script.END}`; "
    "`lab probe` prints the script"
)


class HostReport(Answer):
    """What the probe script found out about a host, as far as an ordinary user may read it.

    The fields of `facts` that are named in `unreadable` hold no finding, and sysctls and mounts named there are
    not in `facts` at all. `facts.command_line` has only the words of `script.COMMAND_LINE`, and
    `facts.apparmor` only the profiles and files of `script.PROFILES`. `facts.python` and `facts.glibc` are
    empty on a host without them.
    """

    version: int = Field(description="The form of the output, which the script's first line names.")
    facts: Facts = Field(description="What the host is.")
    unreadable: tuple[str, ...] = Field(
        description="Facts that the user may not read, or that the script keeps to itself: for example "
        "apparmor.profiles, or sysctls.kernel.apparmor_restrict_unprivileged_unconfined."
    )
    id_like: tuple[str, ...] = Field(
        description="ID_LIKE of /etc/os-release: the distributions that this one derives from."
    )
    who: Who = Field(description="The user who ran the script.")
    probes: Probes = Field(description="What the kernel allows this user.")

    def knows(self, fact: str) -> bool:
        """Whether a fact, by its path such as apparmor.profiles, is a finding."""
        parts = fact.split(".")
        return not any(".".join(parts[:count]) in self.unreadable for count in range(1, len(parts) + 1))


def read(text: str) -> HostReport | None:
    """Return the first whole output of the probe script in a text; None if the text has none.

    Raises UsageError if there are only outputs that are damaged, or made by a newer script.
    """
    wrong: UsageError | None = None
    for version, lines in _outputs(text):
        try:
            return _read(version, lines)
        except UsageError as error:
            wrong = wrong or error
    if wrong:
        raise wrong
    return None


def _outputs(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of each output, with the version of its form; the last line is its end, if it has one."""
    version, lines = 0, list[str]()
    for raw in text.splitlines():
        line = plain(raw[:LONGEST]).translate(UNDONE).strip(QUOTE_MARKS)
        if begins := BEGIN.search(line):
            if version:
                yield version, lines
            version, lines = int(begins[1]), []
        elif version and line and len(lines) < MOST_LINES:
            lines.append(line)
            if END.search(line):
                yield version, lines
                version = 0
    if version:
        yield version, lines


def _read(version: int, lines: Sequence[str]) -> HostReport:
    if version > script.VERSION:
        raise UsageError(
            f"the probe's output has form {version}, and this lab reads forms up to {script.VERSION}",
            hint="update the lab, or run the script that this lab's `lab probe` prints",
        )
    values, lost = _values(lines)
    found = _Found(values)
    made = {
        "version": version,
        "facts": _facts(found),
        "id_like": (found.one("os.id_like") or "").split(),
        "who": _who(found),
        "probes": outcomes(found.text),
        "unreadable": tuple(dict.fromkeys(found.unreadable)),
    }
    lost += [f"no line {name}" for name in found.missing if name not in values]
    if lost:
        shown = "; ".join([*lost[:5], *([f"and {len(lost) - 5} more"] if len(lost) > 5 else [])])
        raise UsageError(f"the probe's output is damaged: {shown}", hint=HINT)
    try:
        return HostReport.model_validate(made)
    except ValidationError as error:
        raise UsageError(
            f"the probe's output is damaged: {bounded(one_line(error), 300)}", hint=HINT
        ) from error


def _values(lines: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values by their names, still escaped, and what is missing according to the numbers."""
    values: dict[str, list[str]] = {}
    lost: list[str] = []
    last: list[str] = []  # the values under the name that was read last
    expected = 1
    for line in lines:
        if end := END.search(line):
            lost += _gap(expected, int(end[1]) + 1)
            return values, lost
        numbered = NUMBERED.fullmatch(line)
        if numbered is None or int(numbered[1]) < expected:
            # A mail program folded the line before, at a space.
            if last and len(last[-1]) < LONGEST:
                last[-1] = f"{last[-1]} {line}".strip()
            continue
        number, name, value = int(numbered[1]), numbered[2], numbered[3]
        lost += _gap(expected, number)
        expected = number + 1
        if name is not None:
            last = values.setdefault(name, [])
            last.append(value)
        elif last and len(last[-1]) < LONGEST:
            last[-1] += value
    return values, [*lost, f"it ends after line {expected - 1}, without its last line"]


def _gap(expected: int, number: int) -> list[str]:
    if number <= expected:
        return []
    return [
        f"line {expected} is missing"
        if number == expected + 1
        else f"lines {expected} to {number - 1} are missing"
    ]


@dataclass
class _Found:
    """The values that were read, and what became of each name that is asked for."""

    values: dict[str, list[str]]
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """Return a text; None if the host has no such thing, or if it cannot be told."""
        if name not in self.values:
            self.missing.append(name)
            return None
        value = self.values[name][0]
        if value in (script.HIDDEN, script.PRIVATE):
            self.unreadable.append(name)
        return None if value in (script.ABSENT, script.HIDDEN, script.PRIVATE) else _decoded(value)

    def text(self, name: str) -> str:
        """Return a text, empty if there is none."""
        return self.one(name) or ""

    def all(self, name: str) -> list[str]:
        """Return the texts of all lines with a name, of which there may be none."""
        return [_decoded(value) for value in self.values.get(name, []) if value != script.HIDDEN]

    def below(self, prefix: str) -> dict[str, str | None]:
        """Return what is known under the names that begin like this, without the prefix."""
        found = {name: self.one(name) for name in self.values if name.startswith(prefix)}
        known = {name: value for name, value in found.items() if name not in self.unreadable}
        return {name.removeprefix(prefix): value for name, value in known.items()}


def _decoded(value: str) -> str:
    return "" if value == script.EMPTY else plain(unquote(value, errors="replace"))


def _facts(found: _Found) -> dict[str, Any]:
    lsm, controllers = found.one("lsm"), found.one("cgroup.controllers")
    return {
        "os": {key: found.one(f"os.{key}") for key in ("id", "version_id", "version_codename", "pretty_name")},
        **{key: found.text(key) for key in ("kernel", "command_line", "python", "glibc")},
        "lsm": None if lsm is None else lsm.split(","),
        "sysctls": found.below("sysctls."),
        "apparmor": _apparmor(found),
        "selinux": _selinux(found),
        "bubblewrap": _bubblewrap(found),
        "kvm": _kvm(found),
        **{key: found.one(key) == "yes" for key in ("podman", "login_sessions")},
        "virtualization": found.one("virtualization"),
        "cgroup": {
            "version": "v1" if controllers is None else "v2",
            "controllers": (controllers or "").split(),
        },
        "mounts": {path: _mount(value or "") for path, value in found.below("mounts.").items()},
    }


def _apparmor(found: _Found) -> dict[str, Any] | None:
    if found.one("apparmor") is None:
        return None
    mask = found.one("apparmor.features.namespaces_mask")
    if "apparmor.features.namespaces_mask" in found.unreadable:
        found.unreadable.append("apparmor.userns_mediation")
    found.one("apparmor.profiles")
    listed = [re.fullmatch(r"(.*) \((\w+)\)", each) for each in found.all("apparmor.profiles")]
    return {
        "version": found.one("apparmor.version"),
        "features": {
            "namespaces_mask": mask,
            "unconfined_userns": found.one("apparmor.features.unconfined_userns"),
            "policy_versions": found.text("apparmor.features.policy_versions").split(),
        },
        "userns_mediation": "userns_create" in (mask or ""),
        "profiles": {each[1]: each[2] for each in listed if each},
        "profile_files": sorted(found.all("apparmor.profile_files")),
    }


def _selinux(found: _Found) -> dict[str, Any] | None:
    mode = found.one("selinux")
    if mode is None:
        return None
    return {
        "mode": mode,
        "policy": found.one("selinux.policy"),
        "policy_version": found.one("selinux.policy_version"),
        "user_namespace_class": found.one("selinux.user_namespace_class") == "yes",
        "deny_unknown": found.one("selinux.deny_unknown") == "1",
        "modules": found.text("selinux.modules").split(),
    }


def _bubblewrap(found: _Found) -> dict[str, Any] | None:
    path = found.one("bubblewrap")
    if path is None:
        return None
    mode = _mode(found, "bubblewrap.mode")
    if found.one("bubblewrap.capabilities") is not None:
        # `getcap` tells them by names, not as the facts do.
        found.unreadable.append("bubblewrap.capabilities")
    return {
        "path": path,
        "version": found.one("bubblewrap.version"),
        "setuid": bool(mode & 0o4000),
        "mode": oct(mode),
        "capabilities": None,
    }


def _kvm(found: _Found) -> dict[str, Any] | None:
    if found.one("kvm") is None:
        return None
    numbers = {key: found.one(f"kvm.{key}") for key in ("uid", "gid")}
    people = {key: found.one(f"kvm.{key}") for key in ("owner", "group")}
    return {"mode": oct(_mode(found, "kvm.mode")), **numbers, **people}


def _mode(found: _Found, name: str) -> int:
    text = found.text(name)
    return int(text, 8) if re.fullmatch("[0-7]{1,5}", text) else 0


def _mount(value: str) -> dict[str, Any]:
    on, _, rest = value.partition(" ")
    kind, _, options = rest.partition(" ")
    return {"on": on, "type": kind, "options": options.split(",")}


def _who(found: _Found) -> dict[str, Any]:
    return {
        "uid": found.one("who.uid"),
        "groups": found.text("who.groups").split(),
        "context": {
            "apparmor": found.one("who.context.apparmor"),
            "selinux": found.one("who.context.selinux"),
            "delegated": found.text("who.context.delegated").split(),
        },
        "seccomp": found.one("who.seccomp"),
        "container": found.one("who.container") == "yes",
    }
