"""Records of lanes, written before a domain exists: what a dead lab left can be found and removed."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt
import psutil
from filelock import FileLock, Timeout

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.machine import domain, ports
from lab.machine.connection import connection

LANE = "lane.json"
LOCK = "lock"


@dataclass(frozen=True)
class Removed:
    """What `reap` removed: lanes by name, and lock files of ports."""

    lanes: list[str]
    ports: list[Path]


@contextmanager
def lane_folder(paths: Paths, *, guest: str, uri: str, port: int) -> Iterator[Path]:
    """A lane's folder with its record, held by a lock that the kernel drops when this process dies."""
    name = f"lab-{guest}-{secrets.token_hex(3)}"
    folder = paths.make(paths.lanes) / name
    lock = FileLock(folder / LOCK, timeout=0)
    with _gate(paths):
        folder.mkdir()
        # The QEMU user of qemu:///system has to reach the overlay inside.
        folder.chmod(0o711)
        lock.acquire()
    try:
        record = {"lane": name, "uri": uri, "port": port, "pid": os.getpid()}
        (folder / LANE).write_text(json.dumps(record) + "\n")
        yield folder
    finally:
        with _gate(paths):
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def reap(paths: Paths) -> Removed:
    """Remove the domains, passt processes, overlays and port locks of labs that died, and nothing else."""
    if not paths.lanes.is_dir():
        return Removed([], [])
    with _gate(paths):
        lanes = [folder.name for folder in sorted(paths.lanes.glob("lab-*")) if _reap_lane(folder)]
    return Removed(lanes, ports.remove_stale(paths.ports))


def _gate(paths: Paths) -> FileLock:
    """Held while a lane's folder exists without its lock, so that nobody takes it for a dead one's."""
    return FileLock(paths.lanes / ".gate")


def _reap_lane(folder: Path) -> bool:
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return False
    try:
        record = _read(folder)
        if record is not None:
            _destroy_domain(folder.name, str(record["uri"]))
            _end_passt(int(record["port"]))
        # Its own lab may be taking it down at this moment.
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return True
    finally:
        lock.release()


def _read(folder: Path) -> dict[str, str | int] | None:
    """The record, or None where the lab died before it was written and so before there was a domain."""
    try:
        record: dict[str, str | int] = json.loads((folder / LANE).read_text())
        return record
    except (OSError, json.JSONDecodeError):
        return None


def _destroy_domain(lane: str, uri: str) -> None:
    try:
        with connection(uri) as opened:
            found = opened.lookupByName(lane)
            if domain.lane_of(found.XMLDesc()) == lane:
                found.destroy()
    except LabError:
        pass  # No daemon: a domain started with autodestroy did not outlive it.
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (
            libvirt.VIR_ERR_NO_DOMAIN,
            libvirt.VIR_ERR_OPERATION_INVALID,
        ):
            raise LabError(f"could not remove the domain {lane} of a dead run: {error}") from error


def _end_passt(port: int) -> None:
    """Passt ends with its QEMU; one that did not is known by the lane's port on its command line.

    A lab in another place (LAB_HOME) may have the port by now: its passt has a QEMU.
    """
    running = [(process, process.info["cmdline"] or []) for process in psutil.process_iter(["name", "cmdline"])]
    machines = " ".join(word for process, command in running if _is(process, "qemu") for word in command)
    for process, command in running:
        mine = _is(process, "passt") and any(f"127.0.0.1/{port}:22" in part for part in command)
        if not mine or _socket(command) in machines:
            continue
        try:
            process.terminate()
            process.wait(5)
        except psutil.NoSuchProcess:
            continue
        except psutil.TimeoutExpired:
            process.kill()


def _is(process: psutil.Process, program: str) -> bool:
    return str(process.info["name"] or "").startswith(program)


def _socket(command: list[str]) -> str:
    """The socket by which QEMU reaches a passt. https://passt.top/builds/latest/web/passt.1.html"""
    where = command.index("--socket") + 1 if "--socket" in command else len(command)
    # A path that no QEMU has, where there is none.
    return next(iter(command[where : where + 1]), "/no/socket")
