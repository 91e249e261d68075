"""What confines a box, in words that boxes are compared by, and which options of a test are not to be seen.

`network_enabled` and `close_fds` are not judged: /proc shows no rules of Landlock, and the open files of a
process do not tell which of them were inherited.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.record import Protection

JAILER, FILTER = "jailer_enabled", "seccomp_enabled"
# The mode of a process whose kernel does not tell it.
MODE_UNTOLD = "not told by the kernel"


@dataclass(frozen=True)
class UnmetOption:
    """One option that a test set and that is not in force: what it asks for, and what is there, in words."""

    option: str
    request: str
    observation: str

    @property
    def request_text(self) -> str:
        """What was asked for, without what was seen."""
        return f"asked for {self.request} ({self.option})"

    def __str__(self) -> str:
        return f"{self.request_text}: {self.observation}"


@dataclass(frozen=True)
class _Limit:
    """Where the kernel shows a limit: the name in /proc/PID/limits, and the file of a control group."""

    name: str
    file: str
    request: str
    unit: Callable[[int], str] = str


def _bytes(number: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{number / (1 << power):.4g} {unit}"
    return f"{number} bytes"


# boxlite documents all of them as limits of setrlimit, and sets some in the box's control group, too.
LIMITS = {
    "max_open_files": _Limit("open files", "", "at most {} open files"),
    "max_file_size": _Limit("file size", "", "files of at most {}", _bytes),
    "max_processes": _Limit("processes", "pids.max", "at most {} processes"),
    "max_memory": _Limit("address space", "memory.max", "at most {} of memory", _bytes),
    "max_cpu_time": _Limit("cpu time", "", "at most {} s of processor time"),
}


def list_unmet_options(protection: Protection) -> list[UnmetOption]:
    """What a test asked of boxlite for its box and what is not to be seen there."""
    options, unmet = protection.asked, []
    if options.get(JAILER) is True and not protection.namespaces:
        observation = (
            f"{protection.program} shares all namespaces with the test{_admitted(protection, 'sandbox')}"
        )
        unmet.append(UnmetOption(JAILER, "the jailer", observation))
    if options.get(FILTER) is True and protection.seccomp != ["filter"]:
        observation = f"{_threads(protection)}{_admitted(protection, 'seccomp')}"
        unmet.append(UnmetOption(FILTER, "a seccomp filter", observation))
    for name, number, in_force in _limits(protection):
        if not in_force:
            limit = LIMITS[name]
            request = limit.request.format(limit.unit(number))
            unmet.append(UnmetOption(name, request, _without_limit(protection, limit, number)))
    return unmet


def limits_given(protection: Protection) -> list[str]:
    """The options that ask for a limit which is in force."""
    return [name for name, _, in_force in _limits(protection) if in_force]


def _limits(protection: Protection) -> Iterator[tuple[str, int, bool]]:
    """The limits that were asked for, and whether each is in force."""
    for name, limit in LIMITS.items():
        number = protection.asked.get(name)
        if isinstance(number, int) and not isinstance(number, bool):
            values = protection.limits.get(limit.name), protection.cgroup_limits.get(limit.file)
            in_force = [value for value in map(_number, values) if value is not None]
            yield name, number, any(value <= number for value in in_force)


def _threads(protection: Protection) -> str:
    """Which threads of a box have a filter, if not all threads of the process that has the machine."""
    program = protection.program
    if MODE_UNTOLD in protection.seccomp:
        return f"the kernel does not tell whether {program} has one"
    if "filter" in protection.seccomp:
        return f"only some threads of {program} have one"
    filtered = [process.program for process in protection.processes if "filter" in process.seccomp]
    if filtered:
        return f"no thread of {program} has one, only {', '.join(dict.fromkeys(filtered))}"
    other_count = len(protection.processes) - 1
    addition = f", nor of the {other_count} other processes of its box," if other_count > 1 else ""
    return f"no thread of {program}{addition} has one"


def _without_limit(protection: Protection, limit: _Limit, most: int) -> str:
    """What limits the process that has the machine, if not what was asked for."""
    program, in_force = protection.program, _number(protection.limits.get(limit.name))
    if in_force is None:
        observation = f"nothing limits {program}"
    elif limit.name in protection.own_limits:
        observation = f"the limit of {program} is {limit.unit(in_force)}"
    else:
        observation = f"{program} has no lower limit than the test itself"
    numbers = {process.program: _number(process.limits.get(limit.name)) for process in protection.processes}
    if limited_programs := [name for name, number in numbers.items() if number is not None and number <= most]:
        observation += f", only {', '.join(limited_programs)} has it"
    if not limit.file:
        return observation
    group = _number(protection.cgroup_limits.get(limit.file))
    if group is not None:
        return f"{observation}, and its control group {limit.unit(group)}"
    if protection.cgroup is None:
        return f"{observation}, and no control group of its own{_admitted(protection, 'cgroup setup failed')}"
    return f"{observation}, and its control group sets no {limit.file}"


def _admitted(protection: Protection, about: str) -> str:
    """What boxlite itself warned of."""
    warning = next((line for line in protection.warnings if about in line.lower()), "")
    return f'; boxlite\'s own log: "{warning}"' if warning else ""


def _number(text: Any) -> int | None:
    # 64 bits have 20 digits.
    return int(text) if isinstance(text, str) and len(text) <= 20 and text.isdecimal() else None


EMPTY = "0" * 16
# The sets of capabilities that a process has or can take from itself.
HELD = ("Inh", "Prm", "Eff", "Amb")
LIMIT, ASKED = "limit of ", "limit asked for by "
SECCOMP = "seccomp filter"
MOUNTS = "mnt namespace"
# The words for what does not confine a box: the beginning of one for each mount, and one for what is unknown.
WRITABLE = "writable "
UNTOLD = "seccomp not told"
# And one for what a box has, or lacks, as its test has it.
INHERITED = "inherited "


def describe_strengths(protection: Protection) -> list[str]:
    """What confines a box, in words."""
    # Whether each of these confines it, in the order in which it is told.
    confines = {
        "no_new_privs": protection.no_new_privs,
        SECCOMP: protection.seccomp == ["filter"],
        f"{SECCOMP} in some threads": "filter" in protection.seccomp and protection.seccomp != ["filter"],
        "no capabilities": {protection.capabilities.get(name, EMPTY) for name in HELD} == {EMPTY},
        "empty bounding set": protection.capabilities.get("Bnd") == EMPTY,
        "control group of its own": protection.cgroup is not None,
    }
    return [
        *(f"{kind} namespace" for kind in protection.namespaces),
        *(word for word, is_so in confines.items() if is_so),
        *(f"{LIMIT}{name}" for name in protection.own_limits),
        *(f"{ASKED}{name}" for name in limits_given(protection)),
    ]


def join_strengths(strong: Iterable[str]) -> str:
    """Join what confines a box into one phrase, with limits of one kind together."""
    strong = list(strong)
    parts = [word for word in strong if not word.startswith((LIMIT, ASKED))]
    for beginning, phrase in ((LIMIT, "limits of its own on "), (ASKED, "the limits asked for by ")):
        if limits := [word.removeprefix(beginning) for word in strong if word.startswith(beginning)]:
            parts.append(f"{phrase}{' and '.join(limits)}")
    return ", ".join(parts) or "nothing"


def describe_protection(protection: Protection) -> list[str]:
    """What `find_losses` compares: what confines a box, what opens it, and what its test has too."""
    result = describe_strengths(protection)
    if MODE_UNTOLD in protection.seccomp:
        result.append(UNTOLD)
    # A box that shares the mounts of its host may write what its user may.
    if MOUNTS in result:
        result += [f"{WRITABLE}{mount[:-3]}" for mount in protection.mounts if mount.endswith(" rw")]
    return result + [f"{INHERITED}{word}" for word in protection.inherited]


def find_losses(earlier: Sequence[str], current: Sequence[str]) -> tuple[str, ...]:
    """What a box with the words `current` lacks that one with the words `earlier` had.

    What both have from their tests says nothing of boxlite: a service and a container confine a test, too.
    """
    from_tests = {
        word.removeprefix(INHERITED) for word in earlier if word in current and word.startswith(INHERITED)
    }
    lacking = [
        word
        for word in earlier
        if word not in current
        and word not in from_tests
        and not word.startswith((WRITABLE, INHERITED))
        and word != UNTOLD
    ]
    if UNTOLD in current:
        lacking = [word for word in lacking if not word.startswith(SECCOMP)]
    if MOUNTS in earlier and MOUNTS in current:
        newly_writable = [word for word in current if word.startswith(WRITABLE) and word not in earlier]
        lacking += [f"a {word.removeprefix(WRITABLE)} that is not writable" for word in newly_writable]
    return tuple(lacking)
