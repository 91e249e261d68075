"""A disk as distributions publish them for clouds, and a package repository with what preparing it installs.

Both are made of Debian's packages by `cloud_disk.sh` and kept in the cache: nothing of them depends on a test.
"""

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread

from filelock import FileLock

from lab import process
from lab.catalog import Firmware
from lab.files import sha256
from lab.images import debian
from lab.images.store import BaseImage, Manifest
from lab.paths import Paths

RECIPE = Path(__file__).with_suffix(".sh")
# Debian's cloud images have these, or what does the same. Not among them: bubblewrap.
PACKAGES = (
    *("apparmor", "ca-certificates", "cloud-guest-utils", "cloud-init", "dbus", "fdisk", "iproute2"),
    *("grub-common", "grub-efi-amd64-bin", "grub-pc-bin", "linux-image-cloud-amd64", "mtools", "netplan.io"),
    *("openssh-server", "python3", "sudo", "systemd-resolved", "systemd-sysv", "udev"),
)
BUILD_SECONDS = 1800.0
# Of the recipe's partition table: where the root is, in bytes, for debugfs.
ROOT_OFFSET = 69632 * 512


@dataclass(frozen=True)
class CloudDisk:
    """The disk, and the repository beside it."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def image(self, folder: Path, firmware: Firmware, *, sources: str) -> BaseImage:
        """An image of it in `folder`, whose package manager has one source."""
        folder.mkdir(parents=True)
        (folder / "sources.list").write_text(f"deb [trusted=yes] {sources} ./\n")
        raw = folder / "disk.raw"
        process.run(["qemu-img", "convert", "-O", "raw", self.disk, raw], timeout=120)
        on_root(raw, f"write {folder / 'sources.list'} /etc/apt/sources.list")
        process.run(["qemu-img", "convert", "-O", "qcow2", raw, folder / "disk.qcow2"], timeout=120)
        raw.unlink()
        digest = sha256(folder / "disk.qcow2")
        return BaseImage(folder, Manifest("cloud", "0" * 64, digest, "today", 0.0), firmware)


def on_root(raw: Path, command: str) -> str:
    """Do one of debugfs's commands to the root file system of a raw disk; what it printed."""
    return process.run(["/usr/sbin/debugfs", "-w", "-R", command, f"{raw}?offset={ROOT_OFFSET}"], timeout=120)


def ensure(paths: Paths) -> CloudDisk:
    """The disk, built where the cache has none of this recipe."""
    digest = hashlib.sha256(RECIPE.read_bytes() + " ".join(PACKAGES).encode()).hexdigest()
    found = CloudDisk(paths.make(paths.cache) / f"test-cloud-disk-{digest[:16]}")
    with FileLock(found.folder.with_name(f"{found.folder.name}.lock")):
        if not found.folder.exists():
            _build(found.folder)
    return found


def _build(folder: Path) -> None:
    workspace = Path(tempfile.mkdtemp(prefix="boxlite-lab-build-", dir="/var/tmp"))
    # An ordinary user's mmdebstrap becomes a subordinate one.
    workspace.chmod(0o1777)
    try:
        process.run(
            [
                "mmdebstrap",
                f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
                "--format=null",
                "--variant=apt",
                f"--include={','.join(PACKAGES)}",
                f"--customize-hook={RECIPE}",
                "trixie",
                "/dev/null",
            ],
            timeout=BUILD_SECONDS,
            env={"TMPDIR": str(workspace)},
        )
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        shutil.copyfile(workspace / "disk.qcow2", partial / "disk.qcow2")
        shutil.copytree(workspace / "repository", partial / "repository")
        partial.rename(folder)
    finally:
        debian.remove_workspace(workspace)


@dataclass
class Repository:
    """A package repository on 127.0.0.1; `url` is what a guest calls it, `asked` the paths it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(folder: Path) -> Iterator[Repository]:
    """Serve a folder for as long as the block lasts."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            found.asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    found = Repository(f"http://{host_as_guests_see_it()}:{server.server_port}/")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def host_as_guests_see_it() -> IPv4Address:
    """The address behind which a guest finds the host's 127.0.0.1: the host's own gateway, by passt's default.

    https://passt.top/builds/latest/web/passt.1.html, --map-host-loopback
    """
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, gateway, *_ = line.split()
        if int(destination, 16) == 0:
            return IPv4Address(struct.pack("<I", int(gateway, 16)))
    raise AssertionError("this host has no default route, so that passt maps no address to its loopback")
