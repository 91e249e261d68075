"""Remembers which disk each cloud guest uses, so that a newer build is fetched only on request."""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from lab.base.errors import LabError, one_line
from lab.base.files import write_atomically
from lab.base.paths import Paths

FILE = "guests.json"


@dataclass(frozen=True)
class Choice:
    """`sha256` is the disk's digest; `inputs` is the digest of the definition for which it was chosen."""

    inputs: str
    sha256: str


_CHOICES = TypeAdapter(dict[str, Choice])


def remembered(paths: Paths, guest: str) -> Choice | None:
    """Return the disk that was chosen for a guest, if any. Raises LabError if the file is damaged."""
    return _read(paths.images / FILE).get(guest)


def all_remembered(paths: Paths) -> dict[str, Choice]:
    """Return the disks that were chosen, by guest. Raises LabError if the file is damaged."""
    return _read(paths.images / FILE)


def remember(paths: Paths, guest: str, choice: Choice) -> None:
    """Let the guest use this disk from now on."""
    file = paths.images / FILE
    with FileLock(file.with_suffix(".lock")):
        choices = _read(file) | {guest: choice}
        write_atomically(file, _CHOICES.dump_json(choices, indent=2).decode() + "\n")


def _read(file: Path) -> dict[str, Choice]:
    try:
        return _CHOICES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LabError(
            f"{file} cannot be read: {one_line(error)}", hint=f"rm {file}, and pull the images again"
        ) from error
