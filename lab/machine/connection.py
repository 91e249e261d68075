"""The connection to libvirt."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from lab.base import host_table
from lab.base.activity import UNWATCHED, Activity, Progress, Task
from lab.base.errors import LabError
from lab.base.wait import Deadline, DeadlineExpired, call_within

# libvirt starts a session daemon on demand and stops it two minutes after its last use. Of 25 connections
# attempted while the daemon stopped, 6 failed; the next attempt succeeds.
SESSION_SECONDS = 20.0
RETRY_SECONDS = 0.5
# A daemon answers within milliseconds. One that is silent for so long stands still, and libvirt waits for it
# without a limit.
ANSWER_SECONDS, ANSWER = 30.0, "libvirt's answer"
# How long a run waits for a daemon that was there when it began: an upgrade restarts it.
RESTART_SECONDS = 120.0
# libvirt is asked whenever it was silent for so many seconds. If it is silent so many times in a row, the
# connection is closed, and whatever waits for an answer on it fails.
ASK_SECONDS, TIMES = 10, 5

_lock = threading.Lock()
_event_threads: list[threading.Thread] = []


class NoLibvirt(LabError):
    """libvirt cannot be reached; the hint says how to start it."""


def get_default_uri() -> str:
    """`LAB_CONNECT` if set; else the system daemon for root and the session daemon for all other users."""
    address = os.environ.get("LAB_CONNECT")
    return address or ("qemu:///system" if os.geteuid() == 0 else "qemu:///session")


def open_connection(uri: str, *, seconds: float = 0.0, task: Task = UNWATCHED) -> libvirt.virConnect:
    """Open a connection. Raises NoLibvirt if no daemon answers for so many seconds.

    Before each further attempt `task` shows that libvirt is waited for, and may be ended.
    """

    def wait() -> None:
        task.check()
        task.show(Progress("waiting for libvirt to come back", Activity.WAITING))

    # The binding prints every error to standard error, in addition to raising it.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, DeadlineExpired) or _has_no_socket(error)),
        stop=stop_after_delay(max(seconds, SESSION_SECONDS if _is_session(uri) else 0.0)),
        wait=wait_fixed(RETRY_SECONDS),
        before_sleep=lambda _: wait(),
        reraise=True,
    )
    try:
        return retrying(lambda: call_within(lambda: libvirt.open(uri), Deadline(ANSWER_SECONDS, ANSWER)))
    except DeadlineExpired as error:
        raise _stands_still(uri, f"cannot connect to {uri}: {error}") from error
    except libvirt.libvirtError as error:
        # libvirt asks the system's daemon about an address that it does not know; starting that helps nobody.
        starts = _has_no_socket(error) and uri.startswith(("qemu:", "qemu+"))
        hint = how_to_start(uri) if starts else "see --connect and LAB_CONNECT"
        raise NoLibvirt(f"cannot connect to {uri}: {error}", hint=hint) from error


def ask_libvirt[T](uri: str, question: Callable[[], T]) -> T:
    """Return what libvirt answers on a connection to this URI. Raises NoLibvirt if its daemon stands still."""
    try:
        return call_within(question, Deadline(ANSWER_SECONDS, ANSWER))
    except DeadlineExpired as error:
        raise _stands_still(uri, f"{uri}: {error}") from error


def _stands_still(uri: str, problem: str) -> NoLibvirt:
    hint = f"its daemon takes connections but does nothing: kill it and start it again: {how_to_start(uri)}"
    return NoLibvirt(problem, hint=hint)


def _is_session(uri: str) -> bool:
    return uri.endswith("///session")


def _has_no_socket(error: BaseException) -> bool:
    """Whether no daemon listened. A daemon that stops may delete the socket of its successor."""
    if not isinstance(error, libvirt.libvirtError):
        return False
    kind = (error.get_error_domain(), error.get_error_code())
    return kind == (libvirt.VIR_FROM_RPC, libvirt.VIR_ERR_SYSTEM_ERROR)


@contextmanager
def hold_connection(uri: str, *, seconds: float = 0.0, task: Task = UNWATCHED) -> Iterator[libvirt.virConnect]:
    """A connection for the length of a block; see `open_connection`. Closing it ends the domains that it
    started.
    """
    link = open_connection(uri, seconds=seconds, task=task)
    try:
        yield link
    finally:
        # Its daemon may be gone, or stand still.
        with suppress(libvirt.libvirtError, DeadlineExpired):
            call_within(link.close, Deadline(ANSWER_SECONDS, "libvirt to close a connection"))


@contextmanager
def hold_lane_connection(
    uri: str, *, seconds: float = 0.0, task: Task = UNWATCHED
) -> Iterator[libvirt.virConnect]:
    """A connection that fails if its daemon no longer answers; see `open_connection`.

    libvirt's event loop runs in a thread from then on, for as long as this process lives: it must not fork.
    """
    if uri.startswith("qemu"):
        with _lock:
            if not _event_threads:
                libvirt.virEventRegisterDefaultImpl()
                _event_threads.append(threading.Thread(target=_loop, name="libvirt's events", daemon=True))
                _event_threads[0].start()
    with hold_connection(uri, seconds=seconds, task=task) as link:
        with suppress(libvirt.libvirtError):  # A driver without a daemon has nothing to ask.
            link.setKeepAlive(ASK_SECONDS, TIMES)
        yield link


def _loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def how_to_start(uri: str) -> str:
    """How to start the daemon for this URI on this host."""
    if _is_session(uri):
        installation = host_table.suggest_packages("libvirt")
        return f"{installation}; the session daemon starts by itself (./setup.sh doctor does both)"
    host = host_table.find_host_column() or {"units": "libvirtd.service", "daemons": "virtlogd libvirtd"}
    if Path("/run/systemd/system").is_dir():
        return f"systemctl start {host['units']} (./setup.sh doctor does it)"
    daemons = " && ".join(f"{daemon} -d" for daemon in host["daemons"].split())
    return f"{daemons} (./setup.sh doctor does it)"


def format_version(number: int) -> str:
    """Format a version number of libvirt or QEMU: 11003000 is 11.3.0."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
