"""What confines the processes of a box, as its user sees it from outside in /proc."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMESPACES = ("mnt", "user", "pid", "ipc", "uts", "net", "cgroup")
# What bubblewrap makes for the jailer.
ISOLATED = {"mnt", "user", "pid", "ipc", "uts"}
# In /proc/PID/status: https://docs.kernel.org/filesystems/proc.html
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SECCOMP = {"0": "off", "1": "strict", "2": "filter"}
# A kernel that was built without seccomp has no line about it.
NOT_TOLD = "not told by the kernel"
# https://docs.kernel.org/admin-guide/cgroup-v2.html
CGROUP_LIMITS = ("pids.max", "memory.max", "cpu.max")
MOST_WARNINGS, LONGEST_WARNING = 20, 300
# bubblewrap makes its namespaces one after another.
SETTLE_SECONDS = 10.0
LOOK_SECONDS = 0.1


def shim_pid(home: Path, box_id: str) -> int:
    """The process ID of the box's shim, as boxlite recorded it."""
    return int((home / "boxes" / box_id / "shim.pid").read_text().split()[0])


def descendants(pid: int) -> list[int]:
    """`pid` and all its descendants, each after its parent."""
    family = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            family += descendants(int(child))
    return family


def apart(pid: int) -> set[str]:
    """The kinds of namespace that a process does not share with this one. Raises OSError if it has ended."""
    return {kind for kind in NAMESPACES if _namespace(pid, kind) != _namespace("self", kind)}


def most_confined(pid: int, kinds: set[str]) -> tuple[int, set[str]]:
    """The one among `pid` and its descendants with the most namespaces of its own, and their kinds.

    Of several with as many, the last descendant counts. Waits for one that has all of `kinds`.
    """
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        best: tuple[int, set[str]] = (pid, set())
        for process in descendants(pid):
            try:
                best = max((process, apart(process)), best, key=lambda candidate: len(candidate[1]))
            except OSError:  # It ended, or this user may not look at it.
                continue
        if kinds <= best[1] or time.monotonic() > end:
            return best
        time.sleep(LOOK_SECONDS)


def record(keep: Callable[[str, object], None], home: Path, box_id: str, requested: dict[str, Any]) -> None:
    """Have what confines a running box kept in the test's result, with pytest's `record_property`.

    `requested` are the security options that the test gave boxlite, by their names in Python.
    """
    try:
        shim = shim_pid(home, box_id)
        process, _ = most_confined(shim, set())
        confinement = protection(process, home, box_id)
        confinement.update(asked=requested, processes=processes(shim), warnings=warnings(home, box_id))
        keep("protection", confinement)
    except (OSError, ValueError, LookupError) as error:
        # The box works; only what confines it stays unknown.
        print(f"what confines the box could not be read: {error!r}", file=sys.stderr)


def box_processes(box_id: str) -> list[int]:
    """The processes whose command line bears the ID of a box: what boxlite starts for it, wherever that is."""
    bearing = []
    for of in Path("/proc").glob("[0-9]*"):
        try:
            if box_id.encode() in (of / "cmdline").read_bytes():
                bearing.append(int(of.name))
        except OSError:  # It ended.
            continue
    return sorted(bearing)


def record_groups(keep: Callable[[str, object], None], box_id: str) -> None:
    """Have the control groups of this process and of a box kept in the test's result."""
    groups = {}
    for pid in box_processes(box_id):
        try:
            groups[Path(f"/proc/{pid}/cgroup").read_text().strip()] = None
        except OSError:  # It ended.
            continue
    caller = Path("/proc/self/cgroup").read_text().strip()
    keep("groups", {"caller": caller, "box": [group.replace(box_id, "BOX") for group in groups]})


def protection(pid: int, home: Path, box_id: str) -> dict[str, Any]:
    """What confines one process. Paths have HOME and BOX for boxlite's home and the box, so that boxes compare.

    Its cgroup is told if it is not that of this process, which boxlite passes on.
    Raises OSError if the process has ended, or if this user may not look at it.
    """

    def general(text: str) -> str:
        return text.replace(str(home), "HOME").replace(box_id, "BOX")

    of = Path(f"/proc/{pid}")
    status = read_status(of)
    limits, of_test = read_limits(of), read_limits(Path("/proc/self"))
    cgroup = (of / "cgroup").read_text().strip()
    has_own_cgroup = cgroup != Path("/proc/self/cgroup").read_text().strip()
    # The fifth and sixth field: https://docs.kernel.org/filesystems/proc.html
    mounts = [line.split()[4:6] for line in (of / "mountinfo").read_text().splitlines()]
    return {
        "program": status["Name"],
        "namespaces": sorted(apart(pid)),
        "no_new_privs": status["NoNewPrivs"] == "1",
        "seccomp": _seccomp(of),
        "capabilities": {name.removeprefix("Cap"): status[name] for name in CAPABILITIES},
        "inherited": _inherited(of),
        "users": sorted(set(status["Uid"].split())),
        "groups": sorted({*status["Gid"].split(), *status["Groups"].split()}),
        "root": general(str((of / "root").readlink())),
        "cgroup": general(cgroup) if has_own_cgroup else None,
        "cgroup_limits": _cgroup_limits(cgroup) if has_own_cgroup else {},
        "limits": limits,
        "own_limits": sorted(name for name in limits if int(limits[name]) < float(of_test.get(name, "inf"))),
        "mounts": sorted(f"{general(point)} {options.split(',')[0]}" for point, options in mounts),
    }


def processes(shim: int) -> list[dict[str, Any]]:
    """What each process of a box has of what boxlite may give any of them: the shim and its descendants."""
    members = []
    for pid in descendants(shim):
        of = Path(f"/proc/{pid}")
        try:
            members.append(
                {"program": read_status(of)["Name"], "seccomp": _seccomp(of), "limits": read_limits(of)}
            )
        except OSError:  # It ended, or this user may not look at it.
            continue
    return members


def read_group_limits(pid: int) -> dict[str, str]:
    """What a process's own control group limits, by the names of its files; nothing if it shares this one's."""
    cgroup = Path(f"/proc/{pid}/cgroup").read_text().strip()
    return {} if cgroup == Path("/proc/self/cgroup").read_text().strip() else _cgroup_limits(cgroup)


def warnings(home: Path, box_id: str) -> list[str]:
    """What boxlite warned of about a box, in its own logs: each warning once, without its time.

    A process has one log for all of its runtimes, in the home of the first.
    """
    logs = [*(home / "boxes" / box_id / "logs").glob("boxlite*"), *home.parent.glob("*/logs/boxlite*")]
    messages: dict[str, None] = {}
    for log in sorted(logs):
        for line in log.read_text(errors="replace").splitlines():
            _, warns, words = line.partition(" WARN ")
            if warns and box_id in words:
                message = words.strip().replace(str(home), "HOME").replace(box_id, "BOX")
                messages[message[:LONGEST_WARNING]] = None
    return list(messages)[:MOST_WARNINGS]


def _inherited(of: Path) -> list[str]:
    """What a process has, or lacks, as this one does: boxlite need not have given it that."""
    own_status, status = read_status(Path("/proc/self")), read_status(of)
    same = {
        "no_new_privs": own_status["NoNewPrivs"] == status["NoNewPrivs"],
        "seccomp filter": _seccomp(of) == _seccomp(Path("/proc/self")),
        "no capabilities": all(own_status[name] == status[name] for name in CAPABILITIES if name != "CapBnd"),
        "empty bounding set": own_status["CapBnd"] == status["CapBnd"],
    }
    return [word for word, is_same in same.items() if is_same]


def read_limits(of: Path) -> dict[str, str]:
    """The soft limits of a process, by their names; what is unlimited is left out."""
    # `Max open files            1024                 524288               files`
    return dict(re.findall(r"^Max (.+?) {2,}(\d+)", (of / "limits").read_text(), re.M))


def _cgroup_limits(cgroup: str) -> dict[str, str]:
    """What a control group itself limits, by the names of its files; what is unlimited is left out."""
    folder = Path(f"/sys/fs/cgroup{cgroup.removeprefix('0::')}")
    limits = {}
    for name in CGROUP_LIMITS:
        try:
            text = (folder / name).read_text().strip()
        except OSError:  # Its parent does not let it have this controller.
            continue
        if not text.startswith("max"):
            limits[name] = text
    return limits


def _seccomp(of: Path) -> list[str]:
    """The modes of a process: each of its threads has its own filters."""
    modes = {read_status(thread).get("Seccomp") for thread in (of / "task").iterdir()}
    return sorted(NOT_TOLD if mode is None else SECCOMP.get(mode, mode) for mode in modes)


def read_status(of: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):\t(.*)$", (of / "status").read_text(), re.M))


def _namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
