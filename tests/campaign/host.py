"""Where a try runs: a LAB_HOME of its own, and a libvirt of the campaign's own; and what a try leaves there.

A home shares images and stored states with the user's cache, and nothing else. The daemons can be killed, and
no other lab on this host notices. The campaign and all that it starts see their own mounts, so what it mounts
ends with it.
"""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths

GUEST, BUILD = "debian-13", "0.10.8"
# Blocked in different ways, with the cause of each; the second before any box starts: it takes the least time.
VARIANTS = {"userns-clone-off": "userns-sysctl", "kvm-denied": "kvm-denied"}
PLAN = [
    *("matrix", "-g", GUEST, *(word for name in VARIANTS for word in ("-v", name)), "--build", BUILD),
    *("--no-remedies", "--no-experiment", "--jobs", "1", "--verbose"),
]
# What the plan needs of the cache, by folder.
DIGEST = "[0-9a-f]" * 16
SHARED = {"images": f"{GUEST}-{DIGEST}", "states": f"{GUEST}-{DIGEST}*", "wheels": f"boxlite-{BUILD}-*"}
COPY_SECONDS = 300.0
# Sockets, machines, definitions and logs of the daemons.
RUN, LOGS = Path("/run/libvirt"), Path("/var/log/libvirt")
FOLDERS = [RUN, Path("/var/lib/libvirt"), Path("/etc/libvirt/qemu"), LOGS]
DAEMONS = ("virtlogd", "libvirtd")
START_SECONDS = 20.0


@dataclass(frozen=True)
class Home:
    """The folders of one try. `temporary` is TMPDIR of its labs; `keys` has the keys of its lanes.

    `out` is the parent of the run's folder: a small file system can be mounted there. `mounts` are the folders
    at which its fault has mounted one.
    """

    base: Path
    mounts: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> Paths:
        return Paths(cache=self.base / "cache", state=self.base / "state")

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    @property
    def keys(self) -> Path:
        return self.base / "keys"

    @property
    def out(self) -> Path:
        return self.base / "out"

    @property
    def run(self) -> Path:
        return self.out / "run"

    def environment(self) -> dict[str, str]:
        own = {"LAB_HOME": self.base, "TMPDIR": self.temporary, "CAMPAIGN_KEYS": self.keys}
        return {**os.environ, **{name: str(value) for name, value in own.items()}}

    def make(self) -> None:
        self.base.mkdir(mode=0o755, parents=True)
        for folder in (self.paths.cache, self.paths.state, self.temporary, self.keys, self.out):
            folder.mkdir()
        self.keys.chmod(0o700)

    def fill_cache(self, *, states: bool = True) -> None:
        """Link what the plan needs from the user's cache; copy it to another file system. Raises LabError."""
        own = Paths.default().cache
        for name, pattern in SHARED.items():
            target = self.paths.cache / name
            target.mkdir(exist_ok=True)
            for entry in [] if name == "states" and not states else sorted((own / name).glob(pattern)):
                if entry.suffix == ".lock" or (target / entry.name).exists():
                    continue
                how = "--link" if entry.stat().st_dev == target.stat().st_dev else "--sparse=always"
                command = ["cp", "-a", how, str(entry), str(target)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=COPY_SECONDS)
                if done.returncode != 0:
                    raise LabError(f"cannot share {entry} with a try: {done.stderr.strip()}")
        if (own / "acceleration.json").exists():
            shutil.copy2(own / "acceleration.json", self.paths.cache)

    def mount(self, folder: str, size: str) -> None:
        """Put a small file system over one of its folders, until `remove`."""
        mount_tmpfs(self.base / folder, size)
        self.mounts.append(self.base / folder)

    def remove(self) -> None:
        for folder in self.mounts:
            subprocess.run(["umount", "--lazy", folder], check=False, timeout=30, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", self.base], check=True, timeout=COPY_SECONDS)

    def left(self, *, resumed: bool) -> list[str]:
        """Everything that is left of it after its labs have ended and `lab clean` ran.

        What is in the run's folder counts if the run was `resumed`: no other command knows of the folder.
        """
        left = (
            ["libvirt does not answer"]
            if (names := domains()) is None
            else [f"domain {name}" for name in names]
        )
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                left.append(f"process {process.pid} {process.name()}: {command[:160]}")
        left += [f"file {path}" for path in self.files_left(resumed=resumed)]
        here = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
        expected = {str(folder) for folder in self.mounts}
        return left + [f"mount {at}" for at in sorted(here - expected) if Path(at).is_relative_to(self.base)]

    def files_left(self, *, resumed: bool) -> list[Path]:
        """Folders of lanes, half-made images, states and wheels, and temporary files; locks of a run."""
        paths = self.paths
        left = [
            *paths.lanes.glob("lab-*"),
            *paths.cache.rglob(".partial-*"),
            *(entry for entry in paths.state.glob("*") if entry not in (paths.lanes, paths.runs)),
            *self.temporary.glob("*"),
            *(self.out.glob("*/.*") if resumed else ()),
        ]
        return sorted(path.relative_to(self.base) for path in left)

    def processes(self) -> list[psutil.Process]:
        """The processes of the try's labs, and the machines of its lanes."""
        assert _mounts_of("self") != _outside, (
            "without mounts of its own, every process would be the campaign's"
        )
        spared = {os.getpid(), *(pid for name in DAEMONS if (pid := pid_of(name)))}
        # libvirt gives machines mounts of their own.
        marks = [f"{self.base}/", *(file.stem for file in (LOGS / "qemu").glob("lab-*.log"))]
        processes = []
        for process in psutil.process_iter(["name", "cmdline", "status"]):
            if process.pid in spared or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            name, command = process.info["name"] or "", " ".join(process.info["cmdline"] or [])
            is_machine = name.startswith("qemu") and any(mark in command for mark in marks)
            if is_machine or _mounts_of(str(process.pid)) == _mounts_of("self"):
                processes.append(process)
        return processes


# The mounts that this process saw before `enter`.
_outside = ""


def enter() -> None:
    """Leave the mounts of the host for a copy, with empty folders for libvirt. Raises UsageError."""
    if os.geteuid() != 0:
        raise UsageError(
            "the campaign mounts file systems and starts a libvirtd of its own", hint="run it as root"
        )
    global _outside
    _outside = _mounts_of("self")
    os.unshare(os.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, timeout=10)
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
        mount_tmpfs(folder)


def _mounts_of(process: str) -> str:
    """The name of the mount namespace of a process; empty if it has ended."""
    try:
        return str(Path(f"/proc/{process}/ns/mnt").readlink())
    except OSError:
        return ""


def mount_tmpfs(folder: Path, size: str = "64M") -> None:
    """Put an empty file system of a limited size over a folder."""
    options = f"mode=755,size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, timeout=10)


# -- daemons


def pid_of(daemon: str) -> int | None:
    """The process of a daemon of the campaign's own, None if it does not run."""
    try:
        pid = int((RUN / f"{daemon}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    return pid if f"({daemon})" in state and ") Z " not in state else None


def start_daemons() -> None:
    """Start the daemons that do not run, and wait until libvirt answers. Raises LabError."""
    for daemon in DAEMONS:
        if pid_of(daemon) is None:
            subprocess.run([daemon, "-d", "-p", RUN / f"{daemon}.pid"], check=True, timeout=START_SECONDS)
    end = time.monotonic() + START_SECONDS
    while domains() is None:
        if time.monotonic() > end:
            raise LabError("the campaign's libvirtd does not answer")
        time.sleep(0.5)


def signal_daemon(daemon: str, number: signal.Signals) -> None:
    if pid := pid_of(daemon):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def domains() -> list[str] | None:
    """The domains of the campaign's libvirt, None if it does not answer."""
    try:
        listed = virsh("list", "--all", "--name")
    except subprocess.TimeoutExpired:
        return None
    return listed.stdout.split() if listed.returncode == 0 else None


def virsh(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run virsh within 10 s. Raises TimeoutExpired."""
    command = ["virsh", "-q", "-c", "qemu:///system", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
