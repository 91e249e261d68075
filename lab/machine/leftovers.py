"""What a dead lab left behind: found by the mark in each lane's folder, and removed.

The mark is written before a domain exists, so that no domain is ever without one.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt
from filelock import FileLock, Timeout
from pydantic import BaseModel

from lab.base.errors import LabError
from lab.base.files import is_locked
from lab.base.paths import Paths
from lab.machine import domain, ports, qemu
from lab.machine.connection import ask, connection

MARK = "lane.json"
LOCK = "lock"
FOLDERS = "lab-*"
# What libvirt says of a machine that has ended.
GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)


class LeftBehind(LabError):
    """A lane's machine still runs and could not be ended; the next command tries again."""


class Mark(BaseModel):
    """What is needed to remove a lane: its name and its libvirt. `pid` is the lab that made it."""

    lane: str
    uri: str
    pid: int


@dataclass(frozen=True)
class Removed:
    """What `reap` removed: lanes by name, and lock files of ports."""

    lanes: list[str]
    ports: list[Path]


@contextmanager
def lane_folder(paths: Paths, *, guest: str, uri: str) -> Iterator[Path]:
    """A lane's folder with its mark, locked until the block ends or this process dies."""
    name = f"lab-{guest}-{secrets.token_hex(3)}"
    folder = paths.make(paths.lanes) / name
    lock = FileLock(folder / LOCK, timeout=0)
    with _gate(paths):
        folder.mkdir()
        # The QEMU user of qemu:///system must reach the overlay inside.
        folder.chmod(0o711)
        lock.acquire()
    try:
        mark = Mark(lane=name, uri=uri, pid=os.getpid())
        (folder / MARK).write_text(mark.model_dump_json() + "\n")
        yield folder
    except LeftBehind:
        # The mark stays, and the next command removes the machine.
        lock.release()
        raise
    finally:
        if lock.is_locked:
            with _gate(paths):
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def lanes(paths: Paths) -> list[str]:
    """The names of all lanes that have a folder; after `reap`, those of labs that are alive."""
    return sorted(folder.name for folder in paths.lanes.glob(FOLDERS))


def reap(paths: Paths) -> Removed:
    """Remove the machines, overlays and port locks of labs that died, and nothing else."""
    if not paths.lanes.is_dir():
        return Removed([], [])
    with _gate(paths):
        removed = [name for name in lanes(paths) if _reap_lane(paths.lanes / name)]
    return Removed(removed, ports.remove_stale(paths.ports))


def reap_unrecorded(uri: str) -> list[str]:
    """End the machines that have the lab's mark and no lane's folder, or one that no living lab holds.

    Returns their names. Raises NoLibvirt.
    """
    with connection(uri) as opened:
        return ask(
            uri, lambda: [machine.name() for machine in opened.listAllDomains() if _end_unowned(machine)]
        )


def _end_unowned(machine: libvirt.virDomain) -> bool:
    try:
        folder = domain.lane_folder(machine.XMLDesc())
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
        mark = _read(folder)
        if mark is not None:
            end_machine(folder.name, mark.uri)
        # Its own lab may be removing the folder at this moment.
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return True
    finally:
        lock.release()


def _read(folder: Path) -> Mark | None:
    """The mark, or None if the lab died while writing it, and so before it started a domain."""
    try:
        return Mark.model_validate_json((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return None


def end_machine(lane: str, uri: str) -> None:
    """End a lane's machine, whether libvirt still knows it or not. Raises LeftBehind."""

    def destroy(opened: libvirt.virConnect) -> None:
        machine = opened.lookupByName(lane)
        if domain.lane_of(machine.XMLDesc()) == lane:
            machine.destroy()

    problem = ""
    try:
        with connection(uri) as opened:
            ask(uri, lambda: destroy(opened))
    except LabError:
        pass  # There is no daemon, or it stands still. A machine outlives one that was killed.
    except libvirt.libvirtError as error:
        if error.get_error_code() not in GONE:
            problem = f": libvirt could not destroy its domain: {error}"
    qemu.end(lane)
    if problem or any(qemu.processes_of(lane)):
        raise LeftBehind(
            f"the machine of {lane} could not be ended{problem}",
            hint="when libvirt is back, end it with lab clean",
        )
