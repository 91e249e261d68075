"""Remembers which disk each cloud guest uses, so that a newer build is fetched only on request."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from lab.base.errors import LabError
from lab.base.files import write_atomically
from lab.base.paths import Paths

FILE = "guests.json"


@dataclass(frozen=True)
class Choice:
    """`sha256` is the disk's; it holds for the definition with the digest `inputs`."""

    inputs: str
    sha256: str


def remembered(paths: Paths, guest: str) -> Choice | None:
    """What a guest uses, if it was chosen before. Raises LabError."""
    entry = _read(paths.images / FILE).get(guest)
    return Choice(**entry) if entry else None


def remember(paths: Paths, guest: str, choice: Choice) -> None:
    """From now on the guest uses this disk."""
    file = paths.images / FILE
    with FileLock(file.with_suffix(".lock")):
        write_atomically(file, json.dumps(_read(file) | {guest: asdict(choice)}, indent=2) + "\n")


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        known = json.loads(file.read_text())
        return {guest: {key: entry[key] for key in ("inputs", "sha256")} for guest, entry in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise LabError(
            f"{file} cannot be read: {error}", hint=f"rm {file}, and pull the images again"
        ) from error
