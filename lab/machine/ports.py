"""Ports on 127.0.0.1, each reserved by a lock for as long as its lane lives."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lab.base.errors import LabError

# Below the range from which Linux assigns ports by itself (32768 and up).
FIRST, LAST = 22100, 22999


@contextmanager
def reserved(folder: Path) -> Iterator[int]:
    """Hold a port that no lane holds and no program listens on. Raises LabError if none is left.

    The kernel drops its lock when this process dies. The locks of another user's labs are elsewhere, and
    nothing listens on a port until its machine starts. So the search begins anywhere in the range: two such
    labs rarely choose the same port.
    """
    count = LAST - FIRST + 1
    begin = secrets.randbelow(count)
    for number in (FIRST + (begin + step) % count for step in range(count)):
        file = folder / f"{number}.lock"
        lock = FileLock(file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            if _is_free(number):
                yield number
                return
        finally:
            file.unlink(missing_ok=True)
            lock.release()
    raise LabError(f"no free port on 127.0.0.1 from {FIRST} to {LAST}", hint="end other lanes: lab clean")


def remove_stale(folder: Path) -> list[Path]:
    """Delete the lock files that no process holds, and return their paths."""
    removed = []
    for file in sorted(folder.glob("*.lock")):
        lock = FileLock(file, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        file.unlink(missing_ok=True)
        lock.release()
        removed.append(file)
    return removed


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
        return True
