"""Lock files: does a process hold one, and waiting for one within a limit, with a word about it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lab.base.activity import Activity, Progress, Task
from lab.base.errors import LabError
from lab.base.files import open_regular
from lab.base.wait import Deadline, DeadlineExpired, wait_for

# How often the lock is tried.
INTERVAL_SECONDS = 1.0


def is_locked(lock: Path) -> bool:
    """Whether a process holds this lock file; one that a dead process left is nobody's. Raises OSError."""
    try:
        # It is only read: whoever may not write there may ask, too.
        with open_regular(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def hold_lock(lock: Path, seconds: float, work: str, task: Task) -> Iterator[None]:
    """Hold the lock file for the length of a block; then remove it.

    While another lab or thread holds it, `task` shows what is waited for, and may be ended.
    `work` is what the holder is doing: "this image to be built". Raises LabError after `seconds`.
    """
    file_lock = FileLock(lock, timeout=0)

    def attempt() -> bool | None:
        try:
            file_lock.acquire()
        except Timeout:
            task.show(Progress(f"waiting for {work}", Activity.WAITING))
            return None
        return True

    try:
        wait_for(attempt, Deadline(seconds, work), alive=task.check, interval=INTERVAL_SECONDS)
    except DeadlineExpired as late:
        raise LabError(
            str(late), hint=f"lslocks shows which process holds {lock}; end it if it hangs"
        ) from late
    try:
        yield
    finally:
        # It is removed while it is held. Whoever opened this file and waits for it gets the lock of a file
        # without a name; filelock then drops that and opens the file which has the name.
        with suppress(OSError):
            lock.unlink()
        file_lock.release()
