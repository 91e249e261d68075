"""A guest that plays a host: Debian with what setup.sh installs, and a copy of this clone.

Nothing in it comes from a network: packages are in its image, the libraries are wheels that this host downloads
from the lock files, and the image and wheels that its own runs need are copies of this host's.
"""

import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import paramiko

from lab.base import host_table, process
from lab.base.activity import Task
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.guest import ready
from lab.guest.session import ADMIN, Session
from lab.images import store
from lab.images.store import BaseImage
from lab.lane.prepare_image import FIRST_BOOT
from lab.machine import acceleration
from lab.machine.acceleration import Acceleration
from lab.machine.checkpoint import Checkpoint
from lab.machine.connection import get_default_uri, hold_lane_connection
from lab.machine.lane import Lane, open_lane

ROOT = Path(__file__).parents[2]
CLONE, WHEELS = "/opt/boxlite-lab", "/opt/wheels"
Who = Literal["root", "lab"]
# The system's cache, and that of the ordinary user.
CACHES: dict[Who, str] = {"root": "/var/cache/boxlite-lab", "lab": f"/home/{ADMIN}/.cache/boxlite-lab"}
PROCESSORS, MEMORY_MIB, DISK_GIB = 2, 6656, 16
# In addition to what setup.sh installs: what every Debian host has that the lab's own guests do without.
USUAL = ("dbus-user-session", "kmod", "libpam-systemd", "procps", "sudo")
# What a host of this kind has that is confined by SELinux; the last package is what `--allow=consoles` needs.
SELINUX = (
    "auditd",
    "python3-selinux",
    "selinux-policy-default",
    "selinux-utils",
    "policycoreutils-python-utils",
)
# Seconds under KVM; under emulation they are at least ten times that. setup.sh compiles libvirt's binding. A
# lane in this guest took 35 minutes for a blocked cell.
LAB_SECONDS, MATRIX_SECONDS = 240.0, 720.0


def list_packages(name: str) -> set[str]:
    """What setup.sh installs on a host of the table, and what such a host has anyway."""
    [column] = [column for column in host_table.columns() if column["host"] == name]
    needs = [text for what, text in column.items() if what.startswith(("package.", "user.", "amd64."))]
    return {*USUAL, *(word for text in needs for word in text.split())}


def definition(*, selinux: bool = False) -> Guest:
    """The guest, with the packages of its own column of `hosts.table`; confined by AppArmor or by SELinux."""
    packages = list_packages("debian-13") | {*(SELINUX if selinux else ())}
    image = {"kind": "debian", "suite": "trixie", "packages": sorted(packages), "disk_gib": DISK_GIB}
    if selinux:
        image |= {"selinux": "default", "kernel_arguments": "security=selinux selinux=1 enforcing=1"}
    return Guest.model_validate(
        {
            "name": "host-selinux" if selinux else "host",
            "title": "A host of the lab, as a guest",
            "image": image,
            "cpus": PROCESSORS,
            "memory_mib": MEMORY_MIB,
        }
    )


class AllProcessors(Acceleration):
    """Emulated as well with as many processors as a guest asks for: a host has more than one."""

    def processors(self, count: int) -> int:
        return count


@dataclass
class Host:
    """The running guest. Commands run in the clone, as root or as the ordinary user with sudo.

    `first` has what each of them saw of the first `./setup.sh doctor`.
    """

    lane: Lane
    session: Session
    first: dict[Who, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    def run(
        self, command: str, *, who: Who = "root", seconds: float = 30.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command; both outputs are in `stdout`, in the order in which they were written."""
        words = f"cd {CLONE} && {{ {command}\n}} 2>&1 </dev/null"
        if who == "root":
            words = f"sudo -n -H sh -c {shlex.quote(words)}"
        done = self.session.run(words, seconds=seconds, check=check)
        return subprocess.CompletedProcess(command, done.status, done.stdout, done.stderr)

    def fork(self, checkpoint: Checkpoint) -> None:
        """Put the guest into the checkpoint's state and wait until it answers."""
        self.session.close()
        self.session.set_speed(self.lane.speed)
        checkpoint.fork()
        self.session.wait_back(ready.BOOT_SECONDS)

    def lab(self, *words: str, who: Who = "root", check: bool = True) -> subprocess.CompletedProcess[str]:
        """`./setup.sh WORDS...` without a network."""
        seconds = MATRIX_SECONDS if words[0] == "matrix" else LAB_SECONDS
        environment = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS}"
        return self.run(f"{environment} ./setup.sh {shlex.join(words)}", who=who, seconds=seconds, check=check)

    def put(self, files: Callable[[tarfile.TarFile], None], to: str) -> None:
        """Unpack what `files` adds to an archive, in a folder of the guest's root; all may read it."""
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            with tarfile.open(fileobj=archive, mode="w") as opened:
                files(opened)
            archive.flush()
            client = paramiko.SFTPClient.from_transport(self.session.log_in(ADMIN))
            assert client is not None
            client.put(archive.name, "/tmp/put.tar")
        unpack = f"mkdir -p {to} && tar --no-same-owner -xf /tmp/put.tar -C {to} && chmod -R a+rX {to}"
        self.session.run(f"sudo -n sh -c '{unpack} && rm /tmp/put.tar'", seconds=60)


@contextmanager
def host(paths: Paths, guest: Guest, task: Task, image: BaseImage | None = None) -> Iterator[Host]:
    """The guest, booted from its image or from another one; nothing of it is left afterwards."""
    image = image or store.ensure_image(paths, guest, task)
    with hold_lane_connection(get_default_uri()) as opened:
        measured = acceleration.decide_acceleration(opened, paths, image, task)
        how = AllProcessors(measured.kvm, measured.reason, measured.kernel_seconds)
        with open_lane(opened, paths, guest=guest, image=image, acceleration=how) as lane:
            lane.start()
            # cloud-init sets up a distribution's disk at its first boot.
            first = replace(lane.speed, more=FIRST_BOOT if image.firmware else 1.0)
            session = Session(lane.endpoint, alive=lane.check_alive, speed=first)
            ready.wait_for_boot(session, lane)
            lane.learn_speed()
            session.set_speed(lane.speed)
            yield Host(lane, session)


def list_clone() -> list[str]:
    """The files of this clone, by their paths in it."""
    return process.run_command(["git", "-C", ROOT, "ls-files"], timeout=60).splitlines()


def move_in(host: Host, paths: Paths, image: BaseImage, wheels: Path) -> None:
    """Give the guest the clone, the libraries and, in both users' caches, an image and boxlite's wheels."""

    def clone(archive: tarfile.TarFile) -> None:
        for name in list_clone():
            archive.add(ROOT / name, name)

    host.put(clone, CLONE)
    host.put(lambda archive: archive.add(wheels, "."), WHEELS)
    for who in CACHES:
        fill_cache(host, paths, image, who)
    # The files of both are this user's: root may read them, too.
    host.session.run(f"sudo -n chown -R {ADMIN}: {CLONE} /home/{ADMIN}/.cache", seconds=30)


def fill_cache(host: Host, paths: Paths, image: BaseImage, who: Who) -> None:
    """Give a user's cache an image and boxlite's wheels."""

    def cache(archive: tarfile.TarFile) -> None:
        archive.add(image.folder, f"images/{image.folder.name}")
        for folder in (paths.cache / "wheels").iterdir():
            if folder.is_dir():
                archive.add(folder, f"wheels/{folder.name}")

    host.run(f"mkdir -p {CACHES[who]}", who=who)  # The folders above it are the user's, too.
    host.put(cache, CACHES[who])
    host.session.run(f"sudo -n chown -R {who}: {CACHES[who]}", seconds=30)


def download_wheels(folder: Path) -> None:
    """What setup.sh installs with pip, by the lock files with their hashes."""
    locks = [word for name in ("build", "lab") for word in ("-r", str(ROOT / "requirements" / f"{name}.txt"))]
    options = [
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--no-build-isolation",
    ]
    process.run_command([sys.executable, "-m", "pip", "download", *options, *locks, "-d", folder], timeout=600)
