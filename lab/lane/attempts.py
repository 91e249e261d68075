"""Where attempts at the same thing keep what they found, and how a faulty attempt is set aside."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# Evidence of an attempt that met a fault of the lab; numbered.
FAULT = "fault-"


def fault_folder(folder: Path) -> Path:
    """The next free folder for a fault's evidence, beside those of earlier faults."""
    number = 1
    while (folder / f"{FAULT}{number}").exists():
        number += 1
    return folder / f"{FAULT}{number}"


def set_aside(folder: Path, target: Path) -> None:
    """Move all that an attempt left, except other faults, to `target` as evidence of its fault."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if entry != target and not entry.name.startswith(FAULT):
            entry.rename(target / entry.name)


def keep_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts as evidence, by file name. A full disk is no reason to lose the cell's result, too."""
    with suppress(OSError):
        for name, text in texts.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def clear(folder: Path) -> None:
    """Delete an attempt's files before it is repeated; keep `fault-N/`."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not entry.is_dir():
            entry.unlink()
        elif not entry.name.startswith(FAULT):
            shutil.rmtree(entry)
