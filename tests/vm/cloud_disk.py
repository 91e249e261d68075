"""Disks as distributions publish them for clouds, each with the packages that preparing it installs.

Both are made of Debian's packages by a recipe of `recipes/` and kept in the cache: nothing depends on a test.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from lab.base import process, scratch
from lab.base.architecture import AARCH64, X86_64, Architecture
from lab.base.files import hash_file
from lab.base.paths import Paths
from lab.catalog import Firmware, loading
from lab.images import debian, store
from lab.images.store import BaseImage, ImageManifest
from lab.machine import seed
from tests.builders.mirror import SigningKey, definitions, guest, key_ring, serving

RECIPES = Path(__file__).with_name("recipes")
# Debian's cloud images have these, or what does the same. Not among them: bubblewrap.
COMMON = (
    *("apparmor", "ca-certificates", "cloud-guest-utils", "cloud-init", "dbus", "fdisk", "iproute2"),
    *("grub-common", "libpam-systemd", "mtools", "netplan.io"),
    *("openssh-server", "python3", "sudo", "systemd-resolved", "systemd-sysv", "udev"),
)
PACKAGES = (*COMMON, "grub-efi-amd64-bin", "grub-pc-bin", "linux-image-cloud-amd64")
BUILD_SECONDS = 1800.0
# Of the small disk's partition table: where the root is, in bytes, for debugfs.
ROOT_OFFSET = 69632 * 512


@dataclass(frozen=True)
class Recipe:
    """A script of `recipes/`, the packages of its guest, and the variables that the script is given.

    A folder of the script's name holds files for the guest. `for_root` says why only root can build the disk.
    """

    script: str
    packages: tuple[str, ...] = PACKAGES
    settings: Mapping[str, str] = field(default_factory=dict)
    for_root: str = ""
    architecture: Architecture = X86_64

    @property
    def file(self) -> Path:
        return RECIPES / f"{self.script}.sh"

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the disk, except the state of Debian's mirror."""
        files = [self.file, RECIPES / "common.sh", *sorted((RECIPES / self.script).glob("*"))]
        parts = [*(file.read_text() for file in files), *self.packages]
        parts += [f"{name}={value}" for name, value in sorted(self.settings.items())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


SMALL = Recipe("small")
ARM64 = Recipe("small", (*COMMON, "grub-efi-arm64-bin", "linux-image-cloud-arm64"), architecture=AARCH64)


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

    def as_image(self, guest: str, inputs: str) -> BaseImage:
        """The image for lanes of a guest that boot the disk as it is, by BIOS and its own loader."""
        manifest = ImageManifest(
            guest=guest,
            inputs=inputs,
            disk_sha256=hash_file(self.disk),
            built="",
            seconds=0,
            source=f"the tests' {self.folder.name}",
            files={},
        )
        return BaseImage(self.folder, manifest, Firmware.BIOS)

    def with_sources(self, to: Path, url: str) -> Path:
        """A copy of the disk whose package manager has one source."""
        sources, raw = to.with_name("sources.list"), to.with_name("disk.raw")
        sources.write_text(f"deb [trusted=yes] {url} ./\n")
        process.run_command(["qemu-img", "convert", "-O", "raw", self.disk, raw], timeout=120)
        on_root(raw, f"write {sources} /etc/apt/sources.list")
        process.run_command(["qemu-img", "convert", "-O", "qcow2", raw, to], timeout=120)
        raw.unlink()
        return to


def on_root(raw: Path, command: str) -> str:
    """Do one of debugfs's commands to the root file system of a raw disk; what it printed."""
    return process.run_command(
        ["/usr/sbin/debugfs", "-w", "-R", command, f"{raw}?offset={ROOT_OFFSET}"], timeout=120
    )


def ensure(paths: Paths, recipe: Recipe = SMALL) -> CloudDisk:
    """The disk, built where the cache has none of this recipe."""
    name = f"test-{recipe.script}-disk-{recipe.digest[:16]}"
    disk = CloudDisk(paths.make(paths.cache) / name)
    with FileLock(disk.folder.with_name(f"{name}.lock")):
        if not disk.folder.exists():
            _build(recipe, disk.folder)
    return disk


def _build(recipe: Recipe, folder: Path) -> None:
    # Locked, or any other lab's sweep would take it for the workspace of a dead one.
    with scratch.make_locked_folder(debian.ON_DISK, debian.WORKSPACE) as workspace:
        # An ordinary user's mmdebstrap becomes a subordinate one.
        workspace.chmod(0o1777)
        try:
            _build_in(workspace, recipe)
            partial = folder.with_name(f".partial-{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            shutil.copyfile(workspace / "disk.qcow2", partial / "disk.qcow2")
            shutil.copytree(workspace / "repository", partial / "repository")
            partial.rename(folder)
        finally:
            debian.remove_workspace(workspace)


def _build_in(workspace: Path, recipe: Recipe) -> None:
    # The checkout may be in a home folder, which is closed to a subordinate user.
    recipes = shutil.copytree(RECIPES, workspace / RECIPES.name)
    debian.open_to_others(recipes)
    process.run_command(
        [
            "mmdebstrap",
            f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
            "--format=null",
            "--variant=apt",
            f"--architectures={recipe.architecture.debian}",
            f"--include={','.join(recipe.packages)}",
            f"--customize-hook={recipes / recipe.file.name}",
            "trixie",
            "/dev/null",
        ],
        timeout=BUILD_SECONDS * (1 if recipe.architecture.is_hosts else store.FOREIGN_FACTOR),
        env={"TMPDIR": str(workspace), **recipe.settings},
    )


class Repository:
    """A package repository on 127.0.0.1; `url` is what a guest calls it, `requests` has the paths."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                requests.append(self.path)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        # In QEMU's open user network the host's 127.0.0.1 is behind the gateway.
        self.url = f"http://{seed.GATEWAY}:{self._server.server_port}/"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """From here on nobody answers; a second time it does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@contextmanager
def served(folder: Path) -> Iterator[Repository]:
    """Serve a folder until the block ends, or until it is closed."""
    repository = Repository(folder)
    try:
        yield repository
    finally:
        repository.close()


@contextmanager
def published(built: CloudDisk, sources: str, folder: Path, *names: str) -> Iterator[None]:
    """Publish the disk in the layouts of these guests' distributions, signed by a key of the tests' own.

    `sources` is the URL of the guests' packages. Until the block ends, the lab's definitions name this mirror.
    """
    made = built.with_sources(folder / "disk.qcow2", sources).read_bytes()
    with serving() as mirror, key_ring() as ring, pytest.MonkeyPatch.context() as patched:
        key = SigningKey(ring, "good@example.org")
        root = definitions(folder / "definitions", mirror.url, key)
        patched.setattr(loading, "find_definitions", lambda: root)
        loading.load_catalog.cache_clear()
        for name in names:
            mirror.publish(guest(name), made, key)
        yield
    loading.load_catalog.cache_clear()


if __name__ == "__main__":
    ensure(Paths.default())
