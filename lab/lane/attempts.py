"""What is tried more than once: what the tries say together, and where each leaves what it found."""

import shutil
from enum import StrEnum
from pathlib import Path

# Where the evidence of a second try goes, below that of the first.
AGAIN = "again"
# Where the evidence goes of a try that met a fault of the lab's own, numbered.
FAULT = "fault-"


def agreed[T: StrEnum](first: tuple[T, str], second: tuple[T, str], error: T) -> tuple[T, str]:
    """The outcome of two tries, and why.

    It is `error` where they disagree, because then neither tells anything, and where the second met a fault.
    """
    if first[0] is second[0]:
        return first[0], f"twice: {first[1]}"
    if second[0] is error:
        return error, f"a second try, after {': '.join(filter(None, first))}, met a fault: {second[1]}"
    said = "; ".join(": ".join(filter(None, each)) for each in (first, second))
    return error, f"two tries disagree: {said}"


def fault_folder(folder: Path) -> Path:
    """Where in a folder the next fault's evidence goes: beside that of the faults before."""
    number = 1
    while (folder / f"{FAULT}{number}").exists():
        number += 1
    return folder / f"{FAULT}{number}"


def set_aside(folder: Path, target: Path) -> None:
    """Keep all that a try left, but for other faults, as evidence of its fault."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if entry != target and not entry.name.startswith(FAULT):
            entry.rename(target / entry.name)


def clear(folder: Path) -> None:
    """Remove what a try left of what is tried again, but for the evidence of why."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not entry.is_dir():
            entry.unlink()
        elif not entry.name.startswith(FAULT):
            shutil.rmtree(entry)
