"""The kinds of fault. Each is a class with a name; a new one is a new class."""

import errno
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import ClassVar

import paramiko
import psutil

from lab.base.errors import LabError
from lab.machine import leftovers
from lab.record import RESULTS_FILE, RunResult
from tests.campaign import checks, host
from tests.campaign.host import PLAN, Home

# Every cell as expected; something could not be run.
DONE, INCOMPLETE = 0, 3
INTERRUPTED = 130
# Signals after which a shell reports 128 + the number; Popen reports the negative number.
KILLED = -9

KINDS: "dict[str, type[Fault]]" = {}


@dataclass
class Scene:
    """What a fault can reach. `run_lab` runs a command of the lab in the try's home: (status, output)."""

    home: Home
    lab: subprocess.Popen[bytes]
    random: random.Random
    run_lab: Callable[..., tuple[int | None, str]]

    @property
    def results(self) -> RunResult:
        """Raises UsageError."""
        return RunResult.read(self.home.run)


class Fault:
    """One kind of fault. A new object is made for each try, so it may remember what it did."""

    name: ClassVar[str] = ""
    # What happens, and what the lab promises then.
    happens: ClassVar[str]
    promise: ClassVar[str]
    # The exit statuses of the disturbed run that are right.
    statuses: ClassVar[frozenset[int]] = frozenset({DONE, INCOMPLETE})
    # Whether it happens in the guest, and so while the suite runs.
    in_guest: ClassVar[bool] = False
    # Whether the run has no stored state to start from: it boots and deploys.
    boots: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if cls.name:
            assert cls.name not in KINDS, f"two kinds of fault are called {cls.name}"
            KINDS[cls.name] = cls

    @property
    def mounts(self) -> list[Path]:
        """The file systems that it mounts in the try's home."""
        return []

    @property
    def umask(self) -> int:
        """The file mode creation mask of the try's labs."""
        return 0o022

    def prepare(self, home: Home) -> None:
        """Before the lab is started: the home's folders exist, its cache is empty."""

    def inject(self, scene: Scene) -> str:
        """Do it, and return in a few words what was done. Raises LabError if it cannot be done now."""
        raise NotImplementedError

    def mend(self, scene: Scene) -> None:
        """Put the host right after the disturbed run; also called when nothing was done."""

    def check(self, scene: Scene) -> list[str]:
        """What else is not as promised, after the disturbed run and `mend`."""
        return []


# -- Signals to the lab itself


class _Signalled(Fault):
    """The lab gets one signal."""

    number: ClassVar[signal.Signals]
    statuses = frozenset({INTERRUPTED, DONE})

    def inject(self, scene: Scene) -> str:
        scene.lab.send_signal(self.number)
        return f"sent {self.number.name}"


class LabKilled(_Signalled):
    name, number = "lab-sigkill", signal.SIGKILL
    happens = "kill -9 of the lab"
    promise = (
        "Cells decided before are kept; the next command removes the guest; `--resume` runs the rest and "
        "removes the run's lock, which nobody holds."
    )
    statuses = frozenset({KILLED, DONE})


class LabTerminated(_Signalled):
    name, number = "lab-sigterm", signal.SIGTERM
    happens = "SIGTERM to the lab"
    promise = "Exit status 130 within a minute, the guest is taken down, the rest is `not-run (interrupted)`."


class LabInterrupted(_Signalled):
    name, number = "lab-sigint", signal.SIGINT
    happens = "Ctrl-C once"
    promise = "As SIGTERM."


class LabInterruptedTwice(Fault):
    name = "lab-sigint-twice"
    happens = "Ctrl-C twice, up to 2 s apart"
    promise = "The lab ends at once; the guest ends with it, and the next command removes its files."
    statuses = frozenset({INTERRUPTED, DONE})

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(0.0, 2.0)
        scene.lab.send_signal(signal.SIGINT)
        time.sleep(pause)
        if scene.lab.poll() is None:
            scene.lab.send_signal(signal.SIGINT)
        return f"sent SIGINT twice, {pause:.1f} s apart"


class LabStopped(Fault):
    name = "lab-sigstop"
    happens = "the lab is stopped (SIGSTOP) for 5 to 40 s and goes on"
    promise = "The run goes on. A cell whose limit passed meanwhile is tried again."
    longest: ClassVar[float] = 40.0
    statuses = frozenset({DONE, INCOMPLETE})

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(5.0, self.longest)
        os.killpg(scene.lab.pid, signal.SIGSTOP)
        try:
            time.sleep(pause)
        finally:
            os.killpg(scene.lab.pid, signal.SIGCONT)
        return f"stopped the lab for {pause:.0f} s"


# -- What happens to a guest's machine and to the daemons that hold it


# From the start of the lab to its first machine, on a busy host.
MACHINE_SECONDS = 60.0


def process_of_lane(scene: Scene, program: str) -> psutil.Process:
    """A program of the run's lane, or the next one. Raises LabError if none comes."""
    end = time.monotonic() + MACHINE_SECONDS
    while scene.lab.poll() is None and time.monotonic() < end:
        for each in checks.running():
            left = checks.processes_left(scene.home.base, host.lanes(), [each])
            if left and each.name.startswith(program):
                return psutil.Process(each.pid)
        time.sleep(0.1)
    raise LabError(f"no {program} ran")


class QemuKilled(Fault):
    name = "qemu-sigkill"
    happens = "kill -9 of QEMU"
    promise = "The cell is tried again on a fresh lane; if that fails too it is `error` with the reason."

    def inject(self, scene: Scene) -> str:
        process_of_lane(scene, "qemu").kill()
        return "killed QEMU"


class QemuStopped(Fault):
    name = "qemu-sigstop"
    happens = "QEMU is stopped (SIGSTOP) and does not go on"
    promise = "Within two minutes the lane is given up and taken down; the cell is tried again on a fresh one."

    def inject(self, scene: Scene) -> str:
        self._qemu = process_of_lane(scene, "qemu")
        self._qemu.suspend()
        return "stopped QEMU"

    def mend(self, scene: Scene) -> None:
        with suppress(AttributeError, psutil.NoSuchProcess):
            self._qemu.resume()


class _DaemonKilled(Fault):
    daemon = ""

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(1.0, 8.0)
        host.kill_daemon(self.daemon, signal.SIGKILL)
        self._timer = threading.Timer(pause, host.start_daemons)
        self._timer.start()
        return f"killed {self.daemon}, started again {pause:.1f} s later"

    def mend(self, scene: Scene) -> None:
        with suppress(AttributeError):
            self._timer.join()
        host.start_daemons()


class LibvirtdKilled(_DaemonKilled):
    name = "libvirtd-sigkill"
    daemon = "libvirtd"
    happens = "kill -9 of libvirtd, which comes back within 8 s"
    promise = (
        "The lab waits for it, takes its lane down and goes on with a fresh one; no QEMU outlives the run."
    )


class LibvirtdStopped(Fault):
    name = "libvirtd-sigstop"
    happens = "libvirtd is stopped (SIGSTOP) for 5 to 100 s and goes on"
    promise = "A short pause changes nothing; after a minute the lab gives the lane up and waits for libvirt."

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(5.0, 100.0)
        host.kill_daemon("libvirtd", signal.SIGSTOP)
        self._timer = threading.Timer(pause, host.kill_daemon, ("libvirtd", signal.SIGCONT))
        self._timer.start()
        return f"stopped libvirtd for {pause:.1f} s"

    def mend(self, scene: Scene) -> None:
        with suppress(AttributeError):
            self._timer.join()


class VirtlogdKilled(_DaemonKilled):
    name = "virtlogd-sigkill"
    daemon = "virtlogd"
    happens = "kill -9 of virtlogd, which comes back within 8 s"
    promise = "The run goes on; at worst the console's text is lost, or the cell is tried again."


# -- What happens inside of a guest while the suite runs there; commands go over SSH with the key of the lane


LOGIN_SECONDS = 60.0


def run_in_guest(scene: Scene, script: str) -> None:
    """Start a shell script as root in the guest and do not wait for it. Raises LabError."""
    end = time.monotonic() + LOGIN_SECONDS
    error = "no lane"
    while time.monotonic() < end and scene.lab.poll() is None:
        for port, key in _ways_in(scene):
            try:
                _run(port, key, script)
                return
            except (paramiko.SSHException, OSError, EOFError) as failed:
                error = str(failed)
        time.sleep(0.5)
    raise LabError(f"could not log into the guest: {error}")


def _ways_in(scene: Scene) -> Iterator[tuple[int, str]]:
    """The ports of lanes with the keys of clients, the newest key first."""
    for mark in scene.home.paths.lanes.glob(f"*/{leftovers.MARK}"):
        port = leftovers.Mark.model_validate_json(mark.read_bytes()).port
        for file in sorted(scene.home.keys.iterdir(), reverse=True):
            yield port, file.read_text()


def _run(port: int, key: str, script: str) -> None:
    client = paramiko.SSHClient()
    # The lane's own key proves enough: a wrong guest does not accept it.
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    with client:
        client.connect(
            "127.0.0.1",
            port=port,
            username="lab",
            pkey=paramiko.Ed25519Key.from_private_key(StringIO(key)),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
            banner_timeout=30,
            auth_timeout=30,
        )
        detached = f"nohup sudo -n sh -c {_quoted(script)} >/dev/null 2>&1 </dev/null &"
        _, out, _ = client.exec_command(detached, timeout=20)
        out.channel.recv_exit_status()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class _InGuest(Fault):
    in_guest = True
    script = ""

    def inject(self, scene: Scene) -> str:
        run_in_guest(scene, self.script)
        return f"in the guest: {self.script}"


class GuestPowersOff(_InGuest):
    name = "guest-powers-off"
    happens = "the guest powers off"
    promise = "The machine's end is noticed in seconds; the cell is tried again on a fresh lane."
    script = "systemctl poweroff --force --force"


class GuestReboots(_InGuest):
    name = "guest-reboots"
    happens = "the guest reboots"
    promise = "A restart ends the machine; the cell is tried again on a fresh lane."
    script = "systemctl reboot --force --force"


class GuestPanics(_InGuest):
    name = "guest-panics"
    happens = "the guest's kernel panics"
    promise = "As a restart; the console with the panic is in the cell's evidence."
    script = "echo c > /proc/sysrq-trigger"


class GuestDiskFull(_InGuest):
    name = "guest-disk-full"
    happens = "the guest's disk is full"
    promise = "The cell says what its tests and probes showed, or that they could not; the next fork has space."
    script = "fallocate -l $(($(stat -f -c %f /) * $(stat -f -c %S /))) /fill; cat /dev/zero > /fill2"


class GuestOutOfMemory(_InGuest):
    name = "guest-out-of-memory"
    happens = "a process in the guest takes all memory"
    promise = (
        "A suite that the kernel's out-of-memory killer ended is told as that, and never blamed on boxlite."
    )
    script = "for each in 1 2 3; do tail /dev/zero & done; wait"


class GuestLosesNetwork(_InGuest):
    name = "guest-loses-network"
    happens = "the guest loses its network"
    promise = (
        "The guest is given up when what ran in it meets its limit; the cell is tried again on a fresh lane."
    )
    script = "for each in /sys/class/net/e*; do ip link set ${each##*/} down; done"


class GuestClockBack(_InGuest):
    name = "guest-clock-back"
    happens = "the guest's clock is set an hour back"
    promise = "The cell's result is the same: the lab measures with clocks that only go forward."
    script = "date -s '1 hour ago'"


class GuestSshdKilled(_InGuest):
    name = "guest-sshd-killed"
    happens = "kill -9 of sshd in the guest, sessions included"
    promise = "SSH breaks; the lab logs in again or tries the cell again."
    script = "pkill -9 sshd"


class GuestAgentKilled(_InGuest):
    name = "guest-agent-killed"
    happens = "kill -9 of the lab's agent in the guest"
    promise = "A program of the lab meets its limit, and the cell is tried again on a fresh lane; or none ran."
    # The brackets keep this script's own shell from being found.
    script = "pkill -9 -f '[l]ab-agent.py'"


# -- The host's disk is full, in one of the folders that the lab writes: each is a small file system


FILLER = "filler"


def fill(folder: Path) -> int:
    """Write a file until the file system is full; its size."""
    size = 0
    with (folder / FILLER).open("wb", buffering=0) as stream:
        for block in (bytes(2**20), bytes(4096)):
            try:
                while True:
                    size += stream.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return size


class _DiskFull(Fault):
    folder: ClassVar[str]
    size: ClassVar[str]
    statuses = frozenset({DONE, INCOMPLETE})

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    @property
    def mounts(self) -> list[Path]:
        return self._mounted

    def prepare(self, home: Home) -> None:
        host.mount_tmpfs(home.base / self.folder, self.size)
        self._mounted.append(home.base / self.folder)

    def inject(self, scene: Scene) -> str:
        size = fill(scene.home.base / self.folder)
        return f"filled {self.folder}/ with {size // 2**20} MiB"

    def mend(self, scene: Scene) -> None:
        with suppress(FileNotFoundError):
            (scene.home.base / self.folder / FILLER).unlink()


class RunFolderFull(_DiskFull):
    name = "full-run-folder"
    folder, size = "out", "64M"
    happens = "the disk of the run's folder is full"
    promise = "Exit status 3 with the path; results so far are kept whole, and `--resume` goes on."


class StateFull(_DiskFull):
    name = "full-lanes"
    folder, size = "state", "3G"
    happens = "the disk of the lanes' folders is full"
    promise = "The machine stops at its failed write; the cell is `error` and says how much is free."


class TemporaryFull(_DiskFull):
    name = "full-temporary"
    folder, size = "tmp", "64M"
    happens = "the disk of the temporary files is full"
    promise = "What could not be written is said with its path, exit status 3."


class CacheFull(_DiskFull):
    name = "full-cache"
    folder, size = "cache", "6G"
    boots = True
    happens = "the disk of images and stored states is full, in a run that would store a state"
    promise = "The state is not stored, nothing half-written is left, and the cells run as ever."


# -- How the host is set up: ports that are taken, masks of file modes


# How many of the lab's ports stay free. The lab begins its search anywhere: it nearly always meets a taken one.
FREE = 50
KEY_MARKS = (b"PRIVATE KEY", b'"private"')


class PortsTaken(Fault):
    name = "port-taken"
    happens = f"another program listens on all of the lab's ports but {FREE}"
    promise = "The lab takes the next free port."
    statuses = frozenset({DONE})

    def prepare(self, home: Home) -> None:
        self._sockets = []
        for number in range(leftovers.FIRST_PORT, leftovers.LAST_PORT + 1 - FREE):
            taken = socket.socket()
            try:
                taken.bind(("0.0.0.0", number))
                taken.listen(1)
            except OSError:  # Another lab has it.
                taken.close()
                continue
            self._sockets.append(taken)

    def inject(self, scene: Scene) -> str:
        return f"{len(self._sockets)} ports were taken from the start"

    def mend(self, scene: Scene) -> None:
        for taken in self._sockets:
            taken.close()


class _Umask(Fault):
    statuses = frozenset({DONE})
    mask = 0o022

    @property
    def umask(self) -> int:
        return self.mask

    def inject(self, scene: Scene) -> str:
        self._seen = exposed(scene.home.base)
        return f"the lab runs with umask {self.mask:03o}"

    def check(self, scene: Scene) -> list[str]:
        return sorted({*getattr(self, "_seen", []), *exposed(scene.home.base)})


class UmaskTight(_Umask):
    name = "umask-077"
    mask = 0o077
    happens = "the lab runs with `umask 077`"
    promise = "Everything works: QEMU's user reaches what it needs."


class UmaskOpen(_Umask):
    name = "umask-000"
    mask = 0o000
    happens = "the lab runs with `umask 000`"
    promise = "Nothing with a key is readable by others, and no file that the lab trusts is writable by others."


def exposed(base: Path) -> list[str]:
    """The files below a folder that others can write, and those with a private key that others can read."""
    found = []
    for file in sorted(base.rglob("*")):
        try:
            mode = file.lstat().st_mode
            if stat.S_ISREG(mode) and _reachable(file, base) and mode & stat.S_IWOTH:
                found.append(f"others can write {_place(file, base)}")
            if stat.S_ISREG(mode) and _reachable(file, base) and mode & stat.S_IROTH and _has_key(file):
                found.append(f"others can read the key in {_place(file, base)}")
        except OSError:  # The lab has removed it.
            continue
    return found


def _reachable(file: Path, base: Path) -> bool:
    """Whether others can enter every folder between them."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in file.parents if folder.is_relative_to(base))


def _place(file: Path, base: Path) -> str:
    """The path without a lane's random name."""
    parts = file.relative_to(base).parts
    return "/".join("lab-*" if part.startswith("lab-") else part for part in parts)


def _has_key(file: Path) -> bool:
    with file.open("rb") as stream:
        text = stream.read(2**20)
    return any(mark in text for mark in KEY_MARKS)


# -- What other programs do to the lab's store and to its records


WRONG_USAGE = 2
SECOND_SECONDS = 500.0


class StoreRemoved(Fault):
    name = "store-removed"
    happens = "images, stored states and wheels are deleted under the lab"
    promise = (
        "Cells that cannot go on are `error` with the missing path; with the store back, `--resume` goes on."
    )

    def inject(self, scene: Scene) -> str:
        shutil.rmtree(scene.home.paths.cache, ignore_errors=True)
        return "deleted the cache"

    def mend(self, scene: Scene) -> None:
        scene.home.paths.cache.mkdir(exist_ok=True)
        scene.home.fill_cache()


class ResultsReplaced(LabInterrupted):
    name = "results-garbage"
    happens = "Ctrl-C, then garbage in results.json before `--resume`"
    promise = "`--resume` names the file and what is wrong, exit status 2, and changes nothing in the folder."
    statuses = frozenset({INTERRUPTED, DONE})
    garbage = (b"", b"{", b"[]", b'{"schema": 2}', b"\x00\xff" * 500, b'{"schema": 99, "run": {}, "cells": []}')

    def check(self, scene: Scene) -> list[str]:
        file = scene.home.run / RESULTS_FILE
        if not file.exists():
            return []
        whole, wrong = file.read_bytes(), scene.random.choice([*self.garbage, file.read_bytes()[:-200]])
        file.write_bytes(wrong)
        try:
            status, output = scene.run_lab("resume of garbage", "matrix", "--resume", str(scene.home.run))
            found = (
                [] if status == WRONG_USAGE else [f"resume of {wrong[:20]!r} ended with {status}, expected 2"]
            )
            if str(file) not in output:
                found.append(f"resume of {wrong[:20]!r} does not name the file: {output[-300:]}")
            return found + (["resume changed a file that it cannot read"] if file.read_bytes() != wrong else [])
        finally:
            file.write_bytes(whole)


class TwoLabs(Fault):
    name = "two-labs"
    happens = "a second lab runs the same plan on the same store"
    promise = "Both end with the same table; neither removes what the other uses."
    statuses = frozenset({DONE, INCOMPLETE})

    def inject(self, scene: Scene) -> str:
        self._second = scene.home.out / "second"
        began = time.monotonic()
        status, output = scene.run_lab("second lab", *PLAN, "-o", str(self._second), seconds=SECOND_SECONDS)
        self._wrong = [] if status == DONE else [f"the second lab ended with {status}: {output[-300:]}"]
        return f"ran a second lab for {time.monotonic() - began:.0f} s"

    def check(self, scene: Scene) -> list[str]:
        if not hasattr(self, "_second"):
            return []
        found = list(self._wrong)
        if not found:
            squares = {cell.variant: str(cell.status) for cell in RunResult.read(self._second).cells}
            found = [
                f"the second lab: {name} is {status}" for name, status in squares.items() if status != "xfail"
            ]
        return found
