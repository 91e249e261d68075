"""Helpers for files and for text that comes from guests."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from lab.base.errors import UsageError

# Escape sequences (ECMA-48) and all other control characters except tab and newline; Unicode's line separators
# and its marks for the direction of text, which make a line look like another one.
CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    r"|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def plain(text: str) -> str:
    """Remove everything from a guest's text that could control a terminal or reverse the text beside it."""
    return CONTROL.sub("", text)


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """Return a file's digest in hexadecimal; `algorithm` is one of hashlib's names."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def seal(folder: Path) -> None:
    """Sync a folder's files to disk and make them read-only. Call it before renaming the folder into place."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        file.chmod(0o444)
    folder.chmod(0o755)


def make_folder(folder: Path) -> None:
    """Create the folder of a run. Raises UsageError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot create the folder {folder}: {error.strerror}", hint="choose another folder with -o DIR"
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content in one step: after a crash it holds either the old or the new text."""
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
