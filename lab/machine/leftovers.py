"""The folders of lanes, and what a dead lab left behind: found by the mark in such a folder, and removed.

The mark is written before a domain exists, so that no domain is ever without one.
"""

import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt
from filelock import FileLock, Timeout
from pydantic import BaseModel

from lab.base.data import SMALL_FILE, read_model
from lab.base.errors import LabError
from lab.base.locks import is_locked
from lab.base.paths import Paths
from lab.machine import domain, qemu
from lab.machine.connection import ask_libvirt, hold_connection

MARK = "lane.json"
LOCK = "lock"
FOLDERS = "lab-*"
# The ports of 127.0.0.1 that lead to guests, below the range from which Linux assigns ports by itself, which
# begins at 32768.
FIRST_PORT, LAST_PORT = 22100, 22999
# What libvirt says of a machine that has ended.
GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)


class LeftBehind(LabError):
    """A lane's machine still runs and could not be ended; the next command tries again."""


class LaneMark(BaseModel):
    """What is needed to remove a lane, and the port of 127.0.0.1 that no other lane gets meanwhile."""

    uri: str
    port: int


@contextmanager
def make_lane_folder(paths: Paths, *, guest: str, uri: str) -> Iterator[tuple[Path, int]]:
    """A lane's folder with its mark, and the lane's port, until the block ends or this process dies.

    The kernel drops the folder's lock with the process. Raises LabError if no port is left.
    """
    folder = paths.make(paths.lanes) / f"lab-{guest}-{secrets.token_hex(3)}"
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        with _gate(paths):
            port = _free_port(paths)
            folder.mkdir()
            # The QEMU user of qemu:///system must reach the overlay inside.
            folder.chmod(0o711)
            lock.acquire()
            (folder / MARK).write_text(LaneMark(uri=uri, port=port).model_dump_json() + "\n")
        yield folder, port
    except LeftBehind:
        # The mark stays, and the next command removes the machine.
        lock.release()
        raise
    finally:
        if lock.is_locked:
            with _gate(paths):
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def _free_port(paths: Paths) -> int:
    """A port that no lane has and that no program listens on.

    The lanes of another user's labs are elsewhere, and nothing listens on a port until its machine starts. So
    the search begins anywhere in the range: two such labs rarely choose the same port.
    """
    taken = {mark.port for folder in paths.lanes.glob(FOLDERS) if (mark := read_mark(folder))}
    count = LAST_PORT - FIRST_PORT + 1
    begin = secrets.randbelow(count)
    for port in (FIRST_PORT + (begin + offset) % count for offset in range(count)):
        if port in taken:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise LabError(
        f"no free port on 127.0.0.1 from {FIRST_PORT} to {LAST_PORT}", hint="end other lanes: lab clean"
    )


def list_lanes(paths: Paths) -> list[str]:
    """The names of all lanes that have a folder; after `reap_dead_lanes`, those of labs that are alive."""
    return sorted(folder.name for folder in paths.lanes.glob(FOLDERS))


def reap_dead_lanes(paths: Paths) -> list[str]:
    """Remove the machines and the folders of labs that died, and nothing else. Returns the lanes' names.

    Raises LeftBehind.
    """
    if not paths.lanes.is_dir():
        return []
    with _gate(paths):
        return [name for name in list_lanes(paths) if _reap_lane(paths.lanes / name)]


def reap_unrecorded_machines(uri: str) -> list[str]:
    """End the machines that have the lab's mark and no lane's folder, or one that no living lab holds.

    Returns their names. Raises NoLibvirt.
    """
    with hold_connection(uri) as link:
        return ask_libvirt(
            uri, lambda: [machine.name() for machine in link.listAllDomains() if _end_unowned(machine)]
        )


def _end_unowned(machine: libvirt.virDomain) -> bool:
    try:
        folder = domain.find_lane_folder(machine.XMLDesc())
        if folder is None or folder.name != machine.name() or _may_be_held(folder):
            return False
        machine.destroy()
    except libvirt.libvirtError:
        return False  # It ended meanwhile.
    return True


def _may_be_held(folder: Path) -> bool:
    """Whether a living lab holds this lane; True if this user cannot tell."""
    try:
        (folder / LOCK).stat()
        return is_locked(folder / LOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _gate(paths: Paths) -> FileLock:
    """Held while a folder exists whose lane has not locked it yet: nobody else may take it for a dead one."""
    return FileLock(paths.lanes / ".gate")


def _reap_lane(folder: Path) -> bool:
    """Remove a lane unless its lab is alive; whether it was removed. Raises LeftBehind."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return False
    try:
        mark = read_mark(folder)
        if mark is not None:
            end_machine(folder.name, mark.uri)
        # Its own lab may be removing the folder at this moment.
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return True
    finally:
        lock.release()


def read_mark(folder: Path) -> LaneMark | None:
    """The mark, or None if the lab died while writing it, and so before it started a domain."""
    try:
        return read_model(LaneMark, folder / MARK, SMALL_FILE)
    except (OSError, ValueError):
        return None


def end_machine(lane: str, uri: str) -> None:
    """End a lane's machine, whether libvirt still knows it or not. Raises LeftBehind."""

    def destroy(link: libvirt.virConnect) -> None:
        machine = link.lookupByName(lane)
        if domain.find_lane_name(machine.XMLDesc()) == lane:
            machine.destroy()

    problem = ""
    try:
        with hold_connection(uri) as link:
            ask_libvirt(uri, lambda: destroy(link))
    except LabError:
        pass  # There is no daemon, or it stands still. A machine outlives one that was killed.
    except libvirt.libvirtError as error:
        if error.get_error_code() not in GONE:
            problem = f": libvirt could not destroy its domain: {error}"
    qemu.end_qemu(lane)
    if problem or any(qemu.find_processes(lane)):
        raise LeftBehind(
            f"the machine of {lane} could not be ended{problem}",
            hint="when libvirt is back, end it with lab clean",
        )
