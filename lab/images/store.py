"""The store of base images: read-only, each in a folder named by the digest of what went into it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lab.catalog import Firmware, Guest
from lab.errors import LabError
from lab.files import seal, sha256
from lab.images import debian
from lab.paths import Paths
from lab.wait import Deadline, wait_for

Say = Callable[[str], None]

MANIFEST = "manifest.json"
# An image is about 0.2 GiB; the tree it is made of and its raw disk need 2 GiB for a moment.
BUILD_FREE_GIB = 3.0
BUILD_SECONDS = 1800.0


@dataclass(frozen=True)
class Manifest:
    """What the store knows of an image; `disk_sha256` is the digest of its disk as it was stored."""

    guest: str
    inputs: str
    disk_sha256: str
    built: str
    seconds: float


@dataclass(frozen=True)
class BaseImage:
    """A whole image in the store. With a `firmware` its disk boots itself; without, QEMU loads its kernel."""

    folder: Path
    manifest: Manifest
    firmware: Firmware | None = None

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


def find(paths: Paths, guest: Guest) -> BaseImage | None:
    """The image of this guest's definition, if it is there. An image of another definition never counts."""
    return _read(_folder(paths, guest))


def any_image(paths: Paths) -> BaseImage | None:
    """Some image of the store, whichever."""
    found = (_read(path.parent) for path in sorted(paths.images.glob(f"[!.]*/{MANIFEST}")))
    return next((image for image in found if image), None)


def ensure(paths: Paths, guest: Guest, say: Say) -> BaseImage:
    """The guest's image, built first where it is not there. Two labs at once build it once.

    `say` gets what is going on, in a few words. Raises LabError when the build fails; nothing is kept then.
    """
    folder = _folder(paths, guest)
    image = _read(folder)
    if image:
        return image
    paths.make(paths.images)
    with locked(folder, lambda: say("waiting for another lab that builds this image"), BUILD_SECONDS):
        return _read(folder) or _build(paths, guest, folder, say)


def inputs_digest(guest: Guest) -> str:
    """SHA-256 over all that decides what an image holds, but for the state of the package mirror that day."""
    return hashlib.sha256(debian.inputs(guest.image)).hexdigest()


def _folder(paths: Paths, guest: Guest) -> Path:
    return paths.images / f"{guest.name}-{inputs_digest(guest)[:16]}"


def _read(folder: Path) -> BaseImage | None:
    try:
        return BaseImage(folder, Manifest(**json.loads((folder / MANIFEST).read_text())))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LabError(
            f"{folder / MANIFEST} cannot be read: {error}", hint=f"rm -r {folder}, and it is built anew"
        ) from error


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None], seconds: float) -> Iterator[None]:
    """Hold the lock on making an image's folder; `on_wait` is called again and again while another lab does.

    Raises DeadlineExpired when that takes more than `seconds`.
    """
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)

    def attempt() -> bool | None:
        try:
            lock.acquire()
        except Timeout:
            on_wait()
            return None
        return True

    wait_for(attempt, Deadline(seconds, "another lab that makes this image"), interval=1.0)
    try:
        yield
    finally:
        lock.release()


def _build(paths: Paths, guest: Guest, folder: Path, say: Say) -> BaseImage:
    """Build beside the store's whole images, then rename: only a finished image ever has its name."""
    partial = folder.with_name(f".partial-{folder.name}")
    debian.remove_workspace(partial)
    free = shutil.disk_usage(paths.images).free / 2**30
    if free < BUILD_FREE_GIB:
        raise LabError(
            f"building {guest.name} needs {BUILD_FREE_GIB:.0f} GiB free in {paths.images}; "
            f"there are {free:.1f}",
            hint="free some disk space and run the same command again",
        )
    partial.mkdir()
    try:
        seconds = debian.build(guest.image, partial, say, timeout=BUILD_SECONDS)
        manifest = Manifest(
            guest=guest.name,
            inputs=inputs_digest(guest),
            disk_sha256=sha256(partial / "disk.qcow2"),
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
        )
        (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
        seal(partial)
        # A folder of that name without a manifest is no image, whoever made it.
        debian.remove_workspace(folder)
        partial.rename(folder)
    except OSError as error:
        debian.remove_workspace(partial)
        raise LabError(
            f"building {guest.name} failed, nothing was kept: {error.strerror}: {error.filename or folder}",
            hint="free some disk space and run the same command again",
        ) from error
    except BaseException:
        debian.remove_workspace(partial)
        raise
    return BaseImage(folder, manifest)
