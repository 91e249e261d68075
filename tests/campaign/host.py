"""Where a try runs: a LAB_HOME of its own, and a libvirt of the campaign's own.

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
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths

GUEST, BUILD = "debian-13", "0.10.8"
# Blocked in different ways, the second before any box starts: it takes the least time.
VARIANTS = ("userns-clone-off", "kvm-denied")
PLAN = [
    *("matrix", "-g", GUEST, *(word for name in VARIANTS for word in ("-v", name)), "--build", BUILD),
    *("--no-remedies", "--no-experiment", "--jobs", "1", "--verbose"),
]
# What the plan needs of the cache, by folder.
DIGEST = "[0-9a-f]" * 16
SHARED = {"images": f"{GUEST}-{DIGEST}", "states": f"{GUEST}-{DIGEST}*", "wheels": f"boxlite-{BUILD}-*"}
COPY_SECONDS = 300.0


@dataclass(frozen=True)
class Home:
    """The folders of one try. `temporary` is TMPDIR of its labs; `keys` has the keys of its lanes."""

    base: Path

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
        """The parent of the run's folder: a small file system can be mounted here."""
        return self.base / "out"

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def folders(self) -> list[Path]:
        """The folders that must exist before a lab starts."""
        return [self.paths.cache, self.paths.state, self.temporary, self.keys, self.out]

    def environment(self) -> dict[str, str]:
        """The environment of the try's labs."""
        own = {"LAB_HOME": self.base, "TMPDIR": self.temporary, "CAMPAIGN_KEYS": self.keys}
        return {**os.environ, **{name: str(value) for name, value in own.items()}}

    def make(self) -> None:
        self.base.mkdir(mode=0o755, parents=True)
        for folder in self.folders:
            folder.mkdir()
        self.keys.chmod(0o700)

    def fill_cache(self, *, states: bool = True) -> None:
        """Link what the plan needs from the user's cache, or copy it to another file system."""
        own = Paths.default().cache
        for name, pattern in SHARED.items():
            target = self.paths.cache / name
            target.mkdir(exist_ok=True)
            for entry in [] if name == "states" and not states else sorted((own / name).glob(pattern)):
                if entry.suffix != ".lock" and not (target / entry.name).exists():
                    _link_or_copy(entry, target / entry.name)
        if (own / "acceleration.json").exists():
            shutil.copy2(own / "acceleration.json", self.paths.cache / "acceleration.json")

    def remove(self) -> None:
        subprocess.run(["rm", "-rf", "--one-file-system", self.base], check=True, timeout=COPY_SECONDS)


def _link_or_copy(source: Path, target: Path) -> None:
    how = "--link" if source.stat().st_dev == target.parent.stat().st_dev else "--sparse=always"
    done = subprocess.run(
        ["cp", "-a", how, source, target], capture_output=True, text=True, check=False, timeout=COPY_SECONDS
    )
    if done.returncode != 0:
        raise LabError(f"cannot share {source} with a try: {done.stderr.strip()}")


# Sockets, machines, definitions and logs of the daemons.
FOLDERS = [Path("/run/libvirt"), Path("/var/lib/libvirt"), Path("/etc/libvirt/qemu"), Path("/var/log/libvirt")]
DAEMONS = ("virtlogd", "libvirtd")
START_SECONDS = 20.0

# The mounts that this process saw before `enter`.
_outside = ""


def enter() -> None:
    """Leave the mounts of the host for a copy, with empty folders for libvirt. Raises UsageError."""
    if os.geteuid() != 0:
        raise UsageError(
            "the campaign mounts file systems and starts a libvirtd of its own", hint="run it as root"
        )
    global _outside
    _outside = _mounts_of_this()
    os.unshare(os.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, timeout=10)
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
        mount_tmpfs(folder)


def is_entered() -> bool:
    """Whether this process sees mounts of its own, so that what it finds below is not the host's."""
    return _outside != "" and _outside != _mounts_of_this()


def _mounts_of_this() -> str:
    return str(Path("/proc/self/ns/mnt").readlink())


def mount_tmpfs(folder: Path, size: str = "64M") -> None:
    """Put an empty file system of a limited size over a folder."""
    options = f"mode=755,size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, timeout=10)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", folder], check=False, timeout=30, capture_output=True)


def mounts(below: Path) -> set[str]:
    """Where file systems are mounted below a folder."""
    places = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return {place for place in places if Path(place).is_relative_to(below)}


def pid_of(daemon: str) -> int | None:
    """The process of a daemon of the campaign's own, None if it does not run."""
    try:
        pid = int((FOLDERS[0] / f"{daemon}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    return pid if f"({daemon})" in state and ") Z " not in state else None


def start_daemons() -> None:
    """Start the daemons that do not run, and wait until libvirt answers. Raises LabError."""
    for daemon in DAEMONS:
        if pid_of(daemon) is None:
            pid_file = FOLDERS[0] / f"{daemon}.pid"
            subprocess.run([daemon, "-d", "-p", pid_file], check=True, timeout=START_SECONDS)
    end = time.monotonic() + START_SECONDS
    while domains() is None:
        if time.monotonic() > end:
            raise LabError("the campaign's libvirtd does not answer")
        time.sleep(0.5)


def kill_daemon(daemon: str, number: signal.Signals = signal.SIGKILL) -> None:
    pid = pid_of(daemon)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_daemons() -> None:
    for daemon in reversed(DAEMONS):
        kill_daemon(daemon, signal.SIGTERM)


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


def lanes() -> set[str]:
    """The lanes that libvirt has started since the logs were cleared."""
    return {file.stem for file in (Path("/var/log/libvirt") / "qemu").glob("lab-*.log")}


def clear_logs() -> None:
    for file in (Path("/var/log/libvirt") / "qemu").glob("lab-*.log"):
        file.unlink()
