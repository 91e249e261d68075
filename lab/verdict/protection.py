"""What confines a box, in words: each is one that another box may lack."""

from collections.abc import Iterable

from lab.record import Protection
from lab.verdict import asked

EMPTY = "0" * 16
# The sets of capabilities that a process has or can take from itself.
HELD = ("Inh", "Prm", "Eff", "Amb")
LIMIT = "limit of "
SECCOMP = "seccomp filter"


def strengths(protection: Protection) -> list[str]:
    """What confines a box, in words."""
    found = [f"{kind} namespace" for kind in protection.namespaces]
    if protection.no_new_privs:
        found.append("no_new_privs")
    if protection.seccomp == ["filter"]:
        found.append(SECCOMP)
    elif "filter" in protection.seccomp:
        found.append(f"{SECCOMP} in some threads")
    if {protection.capabilities.get(name, EMPTY) for name in HELD} == {EMPTY}:
        found.append("no capabilities")
    if protection.capabilities.get("Bnd") == EMPTY:
        found.append("empty bounding set")
    if protection.cgroup is not None:
        found.append("control group of its own")
    found += [f"{LIMIT}{what}" for what in protection.limits]
    return found + [f"{name} as asked" for name in asked.limits_given(protection)]


def summary(words: Iterable[str]) -> str:
    """Join words into one phrase. Limits are counted: most of them are those of every process."""
    words = list(words)
    others = [word for word in words if not word.startswith(LIMIT)]
    limits = len(words) - len(others)
    counted = [f"{limits} limit{'s' if limits != 1 else ''}"] if limits else []
    return ", ".join(others + counted) or "nothing"


def writable(protection: Protection) -> set[str]:
    """What is mounted writable for a box that does not share the mounts of its host."""
    if "mnt" not in protection.namespaces:
        return set()
    return {mount.removesuffix(" rw") for mount in protection.mounts if mount.endswith(" rw")}


def closed(path: str) -> str:
    """The word for a mount that another box may write and this one may not."""
    return f"a {path} that is not writable"
