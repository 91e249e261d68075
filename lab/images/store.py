"""The store of base images: read-only, whole or not there.

A built image has a folder named by the digest of what went into it, a disk that was downloaded or imported one
named by its own digest.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError, UsageError
from lab.base.files import digest, seal, sha256
from lab.base.paths import Paths
from lab.base.wait import Deadline, wait_for
from lab.catalog import CloudImage, DebianImage, Firmware, Guest
from lab.images import choice, cloud, debian, disk, download
from lab.images.download import Say

MANIFEST = "manifest.json"
DISK = "disk.qcow2"
# An image is about 0.2 GiB; the tree it is made of and its raw disk need 2 GiB for a moment.
BUILD_FREE_GIB = 3.0
BUILD_SECONDS = 1800.0
# A disk of 1 GiB at 150 KiB/s.
DOWNLOAD_SECONDS = 7200.0
CONVERT_SECONDS = 1800.0


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class StoredFile:
    """A file as it was stored. Where size and time are the same, so is the digest, unless somebody cheats."""

    sha256: str
    size: int
    modified_ns: int


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What the store knows of an image; `disk_sha256` is the digest of its disk as it was stored.

    `inputs` is the digest of the definition it was made of. `built` is when it came into the store, `seconds`
    how long that took, `source` where it comes from.
    """

    guest: str
    inputs: str
    disk_sha256: str
    built: str
    seconds: float
    source: str = "built"
    files: dict[str, StoredFile] = field(default_factory=dict)


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True)
class BaseImage:
    """A whole image in the store. With a `firmware` the disk's own loader starts it; else it has a kernel."""

    folder: Path
    manifest: Manifest
    firmware: Firmware | None = None

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


def find(paths: Paths, guest: Guest) -> BaseImage | None:
    """The image of this guest's definition, if it is there. An image of another definition never counts."""
    if isinstance(guest.image, DebianImage):
        return read(_folder(paths, guest))
    chosen = choice.remembered(paths, guest.name)
    if chosen is None or chosen.inputs != inputs_digest(guest):
        return None
    image = read(_disk_folder(paths, chosen.sha256))
    return replace(image, firmware=guest.image.firmware) if image else None


def any_image(paths: Paths) -> BaseImage | None:
    """Some image of the store that has a kernel, whichever."""
    return next((image for image in images(paths) if image.kernel.exists()), None)


def images(paths: Paths) -> Iterator[BaseImage]:
    """Every image of the store. Raises LabError for one that cannot be read."""
    for manifest in sorted(paths.images.glob(f"[!.]*/{MANIFEST}")):
        image = read(manifest.parent)
        if image:
            yield image


def ensure(paths: Paths, guest: Guest, say: Say, *, offline: bool = False) -> BaseImage:
    """The guest's image, built or downloaded first where it is not there. Two labs at once do it once.

    `say` gets what is going on, in a few words; `offline` leaves the network alone. Raises ImageNotAvailable,
    LabError when a build fails; nothing is kept then.
    """
    image = find(paths, guest)
    if image:
        check(image)
        return image
    if offline:
        raise ImageNotAvailable(
            "it is not in the store, and the network is to be left alone",
            hint="leave --offline out"
            + (
                f", or: lab images import FILE --as {guest.name}" if isinstance(guest.image, CloudImage) else ""
            ),
        )
    if isinstance(guest.image, CloudImage):
        return _pull(paths, guest, guest.image, say)
    folder = _folder(paths, guest)
    with locked(paths.make(paths.images) / f"{folder.name}.lock", BUILD_SECONDS, "builds", say):
        return read(folder) or _build(paths, guest, guest.image, folder, say)


def update(paths: Paths, guest: Guest, say: Say) -> BaseImage:
    """Have the newest build that a cloud guest's definition allows. Raises ImageNotAvailable, LabError."""
    return _pull(paths, guest, cloud_image(guest), say)


def import_file(paths: Paths, guest: Guest, file: Path, say: Say) -> BaseImage:
    """Copy a disk into the store as a guest's image. Raises UsageError for one that cannot be the guest's."""
    image = cloud_image(guest)
    started = time.monotonic()
    try:
        form = disk.form(file)
    except disk.NotADisk as error:
        raise UsageError(
            f"{file}: {error.args[0]}", hint="name a disk as the distribution publishes it"
        ) from error
    if image.digest:
        algorithm, _, pinned = image.digest.partition(":")
        if digest(file, algorithm) != pinned:
            raise UsageError(f"{file} is not the disk whose digest images/{guest.name}.toml pins")
    paths.make(paths.images)
    copy = paths.make(paths.downloads) / "import.qcow2"
    with locked(copy.with_suffix(".lock"), CONVERT_SECONDS, "imports", say):
        try:
            _copy(file, form, copy)
            return _shelve(paths, guest, copy, f"imported from {file.name}", started, say)
        finally:
            copy.unlink(missing_ok=True)


def cloud_image(guest: Guest) -> CloudImage:
    """The guest's definition as that of a cloud guest. Raises UsageError where it is none."""
    if not isinstance(guest.image, CloudImage):
        raise UsageError(f"the image of {guest.name} is built here", hint=f"lab images build {guest.name}")
    return guest.image


def inputs_digest(guest: Guest) -> str:
    """SHA-256 over all that decides what an image holds, but for the state of the mirror that day."""
    image = guest.image
    inputs = cloud.inputs(image) if isinstance(image, CloudImage) else debian.inputs(image)
    return hashlib.sha256(inputs).hexdigest()


def check(image: BaseImage) -> None:
    """Raise ImageNotAvailable where a file of the image is not what was stored.

    A file is read only where its size or its time is another: each lane asks.
    """
    for name, known in image.manifest.files.items():
        try:
            told = (image.folder / name).stat()
        except OSError:
            told = None
        if told and (told.st_size, told.st_mtime_ns) == (known.size, known.modified_ns):
            continue
        if told is None or sha256(image.folder / name) != known.sha256:
            raise ImageNotAvailable(
                f"{image.folder / name} was changed since it was stored",
                hint="lab images verify sets it aside; the next use has it anew",
            )


def read(folder: Path) -> BaseImage | None:
    """The image in a folder, if there is one. Raises LabError where it cannot be read."""
    try:
        manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes())
        return BaseImage(folder, manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LabError(
            f"{folder / MANIFEST} cannot be read: {error}", hint=f"rm -r {folder}, and it is had anew"
        ) from error


def _folder(paths: Paths, guest: Guest) -> Path:
    return paths.images / f"{guest.name}-{inputs_digest(guest)[:16]}"


def _disk_folder(paths: Paths, sha256: str) -> Path:
    return paths.images / f"sha256-{sha256}"


@contextmanager
def locked(lock: Path, seconds: float, does: str, say: Say) -> Iterator[None]:
    """Hold a lock on making an image; `say` is told again and again that another lab `does` so.

    Raises DeadlineExpired when that takes more than `seconds`.
    """
    held = FileLock(lock, timeout=0)

    def attempt() -> bool | None:
        try:
            held.acquire()
        except Timeout:
            say(f"waiting for another lab that {does} this image")
            return None
        return True

    wait_for(attempt, Deadline(seconds, f"another lab that {does} this image"), interval=1.0)
    try:
        yield
    finally:
        held.release()


def _copy(file: Path, form: str, copy: Path) -> None:
    """Copy a disk; guests' overlays are made over qcow2 alone."""
    if form == "raw":
        command: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", file, copy]
        process.run(command, timeout=CONVERT_SECONDS)
        return
    try:
        shutil.copyfile(file, copy)
    except OSError as error:
        raise LabError(f"{file} cannot be copied into the store: {error.strerror}") from error


def _build(paths: Paths, guest: Guest, image: DebianImage, folder: Path, say: Say) -> BaseImage:
    free = shutil.disk_usage(paths.images).free / 2**30
    if free < BUILD_FREE_GIB:
        raise LabError(
            f"building {guest.name} needs {BUILD_FREE_GIB:.0f} GiB free in {paths.images}; "
            f"there are {free:.1f}",
            hint="free some disk space and run the same command again",
        )

    def fill(partial: Path) -> float:
        return debian.build(image, partial, say, timeout=BUILD_SECONDS)

    return place(folder, guest, inputs_digest(guest), f"built of Debian {image.suite}", fill)


def _pull(paths: Paths, guest: Guest, image: CloudImage, say: Say) -> BaseImage:
    started = time.monotonic()
    want = cloud.wanted(guest, image, say)
    paths.make(paths.images)
    lock = paths.make(paths.downloads) / f"{want.name}.lock"
    with locked(lock, DOWNLOAD_SECONDS, "downloads", say):
        # By another digest only what the guest uses leads to a disk: the one that is pinned.
        known = want.algorithm == "sha256"
        stored = read(_disk_folder(paths, want.digest)) if known else find(paths, guest)
        if stored:
            check(stored)
            _remember(paths, guest, stored)
            return replace(stored, firmware=image.firmware)
        file = cloud.fetch(want, paths.downloads, say)
        shelved = _shelve(paths, guest, file, want.url, started, say)
        download.forget(file)
        return shelved


def _shelve(paths: Paths, guest: Guest, file: Path, source: str, started: float, say: Say) -> BaseImage:
    """Move a verified disk into the store, and remember that the guest uses it."""
    known = sha256(file)
    folder = _disk_folder(paths, known)

    def fill(partial: Path) -> float:
        file.rename(partial / DISK)
        return time.monotonic() - started

    with locked(folder.with_name(f"{folder.name}.lock"), BUILD_SECONDS, "stores", say):
        stored = read(folder)
        if stored:
            check(stored)
        image = stored or place(folder, guest, inputs_digest(guest), source, fill)
    _remember(paths, guest, image)
    return replace(image, firmware=cloud_image(guest).firmware)


def _remember(paths: Paths, guest: Guest, image: BaseImage) -> None:
    chosen = choice.Choice(inputs_digest(guest), image.manifest.disk_sha256)
    choice.remember(paths, guest.name, chosen)


def place(folder: Path, guest: Guest, inputs: str, source: str, fill: Callable[[Path], float]) -> BaseImage:
    """Fill a folder beside the store's whole images, then rename it: only a finished image ever has its name.

    `fill` puts the files into a folder and gives the seconds that it all took; `inputs` is the digest of what
    decides what they hold. Raises what `fill` raises, and LabError; nothing is kept then.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    debian.remove_workspace(partial)
    partial.mkdir()
    try:
        seconds = fill(partial)
        files = {file.name: _stored(file) for file in partial.iterdir()}
        manifest = Manifest(
            guest=guest.name,
            inputs=inputs,
            disk_sha256=files[DISK].sha256,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            source=source,
            files=files,
        )
        (partial / MANIFEST).write_bytes(_MANIFEST.dump_json(manifest, indent=2) + b"\n")
        seal(partial)
        # A folder of that name without a manifest is no image, whoever made it.
        debian.remove_workspace(folder)
        partial.rename(folder)
    except OSError as error:
        debian.remove_workspace(partial)
        raise LabError(
            f"storing {guest.name} failed, nothing was kept: {error.strerror}: {error.filename or folder}",
            hint="free some disk space and run the same command again",
        ) from error
    except BaseException:
        debian.remove_workspace(partial)
        raise
    return BaseImage(folder, manifest)


def _stored(file: Path) -> StoredFile:
    told = file.stat()
    return StoredFile(sha256=sha256(file), size=told.st_size, modified_ns=told.st_mtime_ns)
