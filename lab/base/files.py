"""Small things done with files."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from lab.base.errors import UsageError

# Escape sequences (ECMA-48) and the other control characters but for tab and newline.
CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plain(text: str) -> str:
    """Text of a guest's without anything that would steer a terminal."""
    return CONTROL.sub("", text)


def sha256(path: Path) -> str:
    """A file's digest in hexadecimal."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """A file's digest in hexadecimal, by one of hashlib's names."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def seal(folder: Path) -> None:
    """Write a folder's files through to the disk and make them read-only, before the folder gets its name."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        file.chmod(0o444)
    folder.chmod(0o755)


def make_folder(folder: Path) -> None:
    """Make the folder of a run. Raises UsageError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the folder {folder} cannot be made: {error.strerror}", hint="name another one with -o DIR"
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content in one step, so that a crash leaves the old or the new, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
