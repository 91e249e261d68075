"""Opening the files of a folder of evidence, whose names and kinds a guest or another host may have chosen."""

from pathlib import Path
from stat import S_ISREG

from lab.base.errors import LabError

MISSING = "there is no such file"


def why_not(folder: Path, name: str | Path) -> str:
    """Why a file is not read; empty if it is a regular file in `folder`, with no link on the way to it."""
    try:
        path, whole = folder / name, folder.resolve()
        kind = path.lstat().st_mode
        if path.resolve() != whole / name or not path.resolve().is_relative_to(whole):
            return "it is not inside the folder, or a link leads to it"
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except (OSError, ValueError) as error:
        return str(error)
    return "" if S_ISREG(kind) else "it is not a regular file"


def read_text(folder: Path, name: str | Path) -> str:
    """Read a file of evidence; empty if it was not gathered. Raises LabError if it must not be read."""
    why = why_not(folder, name)
    if why == MISSING:
        return ""
    try:
        if not why:
            return (folder / name).read_text(errors="replace")
    except OSError as error:
        why = str(error.strerror)
    raise LabError(
        f"{folder / name} is not read: {why}", hint="look at what is in its place; run the cell again"
    )


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files of evidence whose paths match a pattern, by name; whatever must not be read is left out."""
    return [path for path in sorted(folder.glob(pattern)) if not why_not(folder, path.relative_to(folder))]
