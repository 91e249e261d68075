"""What confines a box, in words that boxes are compared by."""

from collections.abc import Iterable, Sequence

from lab.record import Protection
from lab.verdict import asked

EMPTY = "0" * 16
# The sets of capabilities that a process has or can take from itself.
HELD = ("Inh", "Prm", "Eff", "Amb")
LIMIT, ASKED = "limit of ", "limit asked for by "
SECCOMP = "seccomp filter"
MOUNTS = "mnt namespace"
# The words for what does not confine a box: the beginning of one for each mount, and one for what is unknown.
WRITABLE = "writable "
UNTOLD = "seccomp not told"


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
    found += [f"{LIMIT}{what}" for what in protection.own_limits]
    return found + [f"{ASKED}{name}" for name in asked.limits_given(protection)]


def summary(strong: Iterable[str]) -> str:
    """Join what confines a box into one phrase, with limits of one kind together."""
    strong = list(strong)
    parts = [word for word in strong if not word.startswith((LIMIT, ASKED))]
    for beginning, said in ((LIMIT, "limits of its own on "), (ASKED, "the limits asked for by ")):
        if limits := [word.removeprefix(beginning) for word in strong if word.startswith(beginning)]:
            parts.append(f"{said}{' and '.join(limits)}")
    return ", ".join(parts) or "nothing"


def words(protection: Protection) -> list[str]:
    """All that is compared of a box: what confines it, and what opens it. `lost` reads them."""
    found = strengths(protection)
    if asked.UNTOLD in protection.seccomp:
        found.append(UNTOLD)
    # A box that shares the mounts of its host may write what its user may.
    if MOUNTS in found:
        found += [f"{WRITABLE}{mount[:-3]}" for mount in protection.mounts if mount.endswith(" rw")]
    return found


def lost(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """What a box with the words `now` lacks that one with the words `before` had."""
    lacking = [word for word in before if word not in now and not word.startswith(WRITABLE) and word != UNTOLD]
    if UNTOLD in now:
        lacking = [word for word in lacking if not word.startswith(SECCOMP)]
    if MOUNTS in before and MOUNTS in now:
        opened = [word for word in now if word.startswith(WRITABLE) and word not in before]
        lacking += [f"a {word.removeprefix(WRITABLE)} that is not writable" for word in opened]
    return tuple(lacking)
