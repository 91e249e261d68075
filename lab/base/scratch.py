"""Temporary folders. A lab that is killed leaves its own behind, and `find_abandoned_folders` finds them.

The process that makes a folder holds its lock (flock) for as long as it lives. A folder without that lock
belongs to no living lab, whether or not anything recorded that it was made.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.base.errors import LabError

PREFIX = "boxlite-lab-tmp-"
# How often a new folder is made: another lab may lock one before its maker does, to see if it is abandoned.
TRIES = 10
# Another process holds the lock; the folder is gone, is a link or a file, or belongs to another user.
NOT_OURS = (BlockingIOError, FileNotFoundError, NotADirectoryError, PermissionError)


@contextmanager
def make_temporary_folder() -> Iterator[Path]:
    """A new folder among the system's temporary files; it is removed after the block."""
    with make_locked_folder(Path(tempfile.gettempdir()), PREFIX) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def make_locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, locked until the block ends or this process dies; the caller removes it.

    Raises LabError if other labs take one new folder after the other for an abandoned one.
    """
    lock = None
    for _ in range(TRIES):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = lock_folder(folder)
        except OSError:  # The file system, for example NFS, locks no folders: nothing there looks abandoned.
            break
        if lock is not None:
            break
    else:
        raise LabError(
            f"no temporary folder could be made in {parent}: {TRIES} new ones were locked or removed at once",
            hint=f"find out what removes new folders there; those of this lab begin with {prefix}",
        )
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


def find_abandoned_folders(parent: Path, prefix: str) -> Generator[Path]:
    """The folders in `parent` that belong to this user and to no living process.

    Each stays locked until the next is asked for.
    """
    for folder in sorted(parent.glob(f"{prefix}*")):
        lock = None
        with suppress(OSError):
            lock = lock_folder(folder)
        if lock is not None:
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    yield folder
            finally:
                os.close(lock)


def lock_folder(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if another process holds it, or the folder is gone.

    Raises OSError if the file system has no such locks.
    """
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NOT_OURS:
        return None
    is_held = False
    try:
        with suppress(*NOT_OURS):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = os.path.samestat(os.fstat(lock), folder.lstat())
    finally:
        if not is_held:
            os.close(lock)
    return lock if is_held else None
