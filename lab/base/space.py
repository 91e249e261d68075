"""A full disk is expected: its error says where it is full, how much is free there, and how much is needed."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.base.errors import LabError

# A file system without space, and a user's quota that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)
# Measured: up to 0.3 MiB for a cell and what was tried on it, and 1.1 MiB for the box's root file system.
A_RUN = "a run needs 2 MiB, and 1 MiB for each cell"
# Measured: a payload is the unpacked wheels of a build, 120 MiB, and the root file system. Both they and
# the tar of them are temporary files.
A_PAYLOAD = "a build on its way into a guest needs 250 MiB"
HINT = (
    "free some disk space and run the same command again; a run that has begun goes on with lab matrix --resume"
)


class DiskFull(LabError):
    """A file system of this host is full, or a quota is used up."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def disk_full(error: OSError, folder: Path, needs: str) -> DiskFull:
    """The error to show for a full disk. `folder` is where it was written if the error itself names no file."""
    where = Path(error.filename or folder)
    return DiskFull(f"{error.strerror}: {where}: {free_text(where)}; {needs}", hint=HINT)


def free_text(path: Path) -> str:
    """How much space is left where a file or folder is, or would be."""
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
    return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free in {folder}"


@contextmanager
def explained(folder: Path, needs: str) -> Iterator[None]:
    """Raise DiskFull for an OSError of a block that writes into `folder` if its disk is full."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise disk_full(error, folder, needs) from error
        raise
