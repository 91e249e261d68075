"""The store of base images. Images are read-only, and only complete ones are stored.

The folder of a built image is named by the digest of its inputs; the folder of a disk that was downloaded or
imported is named by the disk's own digest.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError, UsageError, one_line
from lab.base.files import bounded, digest, plain, put_in_place, seal, sha256, write_atomically
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.catalog import Catalog, CloudImage, DebianImage, Firmware, Guest
from lab.images import cloud, debian, disk, download
from lab.images.content import DISK, Content, FileContent
from lab.images.download import Say

MANIFEST = "manifest.json"
# Which disk each cloud guest uses.
CHOICES = "guests.json"
# How the folder of an image begins that came from another host.
RECEIVED = "received-"
# And how that of a disk which was downloaded or imported.
PUBLISHED = "sha256-"
# An image takes about 0.2 GiB; during the build, its tree and raw disk need 2 GiB.
BUILD_FREE_BYTES = 3 << 30
BUILD_SECONDS = 1800.0
# A disk of 1 GiB at 150 KiB/s.
DOWNLOAD_SECONDS = 7200.0
CONVERT_SECONDS = 1800.0
# Another lane may be bringing the same image from another host: a disk of 1 GiB at 300 KiB/s.
RECEIVE_SECONDS = 3600.0

# Brings a file of an image, by its name, to a path. Raises LabError, OSError.
Bring = Callable[[str, Path], None]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class StoredFile:
    """A file as it was stored. Size and time show whether it changed; the digest proves it."""

    sha256: str
    size: int
    modified_ns: int


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What the store knows about an image. `disk_sha256` is the digest of its disk as it was stored.

    `inputs` is the digest of the definition that it was made from. `built` is the time at which it was stored,
    `seconds` how long that took, and `source` where it comes from. `base` is the SHA-256 of the disk that a
    prepared image was prepared from; any other image has none.
    """

    guest: str
    inputs: str
    disk_sha256: str
    built: str
    seconds: float
    source: str
    files: dict[str, StoredFile]
    base: str = ""


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True)
class Choice:
    """Which disk a cloud guest uses, so that a newer build is fetched only on request.

    `sha256` is the disk's digest; `inputs` is the digest of the definition for which it was chosen.
    """

    inputs: str
    sha256: str


_CHOICES = TypeAdapter(dict[str, Choice])


@dataclass(frozen=True)
class BaseImage:
    """A complete image in the store. It has a kernel, or `firmware` runs the boot loader on its disk."""

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

    @property
    def content(self) -> Content:
        """What it consists of."""
        files = self.manifest.files
        return Content(
            guest=self.manifest.guest,
            inputs=self.manifest.inputs,
            source=bounded(plain(self.manifest.source), 400),
            files={name: FileContent(sha256=file.sha256, size=file.size) for name, file in files.items()},
            base=self.manifest.base,
        )


def find(paths: Paths, guest: Guest) -> BaseImage | None:
    """Return the image that was made from exactly this guest's definition, if it is stored.

    This host's own comes before one from another host. If the guest names its one image, only that will do,
    whatever it was made from.
    """
    firmware = guest.image.firmware if isinstance(guest.image, CloudImage) else None
    if guest.only_image:
        image = by_content(paths, guest.only_image)
    else:
        image = _find_own(paths, guest)
        image = image or find_received(paths, guest.name, inputs_digest(guest))
    return replace(image, firmware=firmware) if image else None


def by_content(paths: Paths, digest: str) -> BaseImage | None:
    """Return the stored image with this content. Raises LabError for one that cannot be read."""
    return next((image for image in images(paths) if image.content.digest == digest), None)


def find_received(paths: Paths, guest: str, inputs: str) -> BaseImage | None:
    """Return an image of a guest that another host made from these inputs, if one is stored."""
    for manifest in sorted(paths.images.glob(f"{received_name(guest, inputs)}-*/{MANIFEST}")):
        if image := read(manifest.parent):
            return image
    return None


def received_name(guest: str, inputs: str) -> str:
    """How the folders of images begin that other hosts made from this definition of a guest."""
    return f"{RECEIVED}{guest}-{inputs[:16]}"


def _find_own(paths: Paths, guest: Guest) -> BaseImage | None:
    """The image that was built, downloaded or imported here."""
    if isinstance(guest.image, DebianImage):
        return read(_folder(paths, guest))
    chosen = chosen_disk(paths, guest.name)
    if chosen is None or chosen.inputs != inputs_digest(guest):
        return None
    return read(_disk_folder(paths, chosen.sha256))


def any_image(paths: Paths) -> BaseImage | None:
    """Return any stored image that has a kernel."""
    return next((image for image in images(paths) if image.kernel.exists()), None)


def images(paths: Paths) -> Iterator[BaseImage]:
    """Iterate over all stored images. Raises LabError for one that cannot be read."""
    for manifest in sorted(paths.images.glob(f"[!.]*/{MANIFEST}")):
        image = read(manifest.parent)
        if image:
            yield image


def ensure(paths: Paths, guest: Guest, say: Say, *, offline: bool = False) -> BaseImage:
    """Return the guest's image; build or download it first if it is not stored. Two labs at once do this once.

    `say` gets short progress messages; `offline` forbids use of the network. Raises ImageNotAvailable, and
    LabError when a build fails; nothing is stored then.
    """
    image = find(paths, guest)
    if image:
        check(image)
        return image
    if guest.only_image:
        raise ImageNotAvailable(f"the one image that the run uses is not in the store: {guest.only_image[:16]}")
    if offline:
        raise ImageNotAvailable(
            "the image is not in the store, and --offline forbids fetching it",
            hint="run without --offline"
            + (
                f", or: lab images import FILE --as {guest.name}" if isinstance(guest.image, CloudImage) else ""
            ),
        )
    if isinstance(guest.image, CloudImage):
        return _pull(paths, guest, guest.image, say)
    folder = _folder(paths, guest)
    with locked(paths.make(paths.images) / f"{folder.name}.lock", BUILD_SECONDS, "this image to be built", say):
        return read(folder) or _build(paths, guest, guest.image, folder, say)


def update(paths: Paths, guest: Guest, say: Say) -> BaseImage:
    """Fetch the newest build that a cloud guest's definition allows. Raises ImageNotAvailable, LabError."""
    return _pull(paths, guest, cloud_image(guest), say)


def import_file(paths: Paths, guest: Guest, file: Path, say: Say) -> BaseImage:
    """Copy a disk into the store as a guest's image. Raises UsageError if the disk cannot be this guest's."""
    image = cloud_image(guest)
    started = time.monotonic()
    try:
        form = disk.detect_format(file)
    except disk.NotADisk as error:
        raise UsageError(
            f"{file}: {error.args[0]}", hint="import a disk as the distribution publishes it"
        ) from error
    if image.digest:
        algorithm, _, pinned = image.digest.partition(":")
        if digest(file, algorithm) != pinned:
            raise UsageError(f"{file} does not have the digest that images/{guest.name}.toml pins")
    paths.make(paths.images)
    copy = paths.make(paths.downloads) / "import.qcow2"
    with locked(copy.with_suffix(".lock"), CONVERT_SECONDS, "this image to be imported", say):
        try:
            _copy(file, form, copy)
            return _store_disk(paths, guest, copy, f"imported from {file.name}", started, say)
        finally:
            copy.unlink(missing_ok=True)


def cloud_image(guest: Guest) -> CloudImage:
    """Return the image definition of a cloud guest. Raises UsageError for any other guest."""
    if not isinstance(guest.image, CloudImage):
        raise UsageError(
            f"the image of {guest.name} is built locally", hint=f"run: lab images build {guest.name}"
        )
    return guest.image


def to_pull(catalog: Catalog, names: Sequence[str]) -> list[Guest]:
    """Return these guests, or all with a cloud image. Raises UsageError for one whose image is built."""
    guests = [catalog.guest(name) for name in names]
    for guest in guests:
        cloud_image(guest)
    return guests or [guest for guest in catalog.guests.values() if isinstance(guest.image, CloudImage)]


def to_build(catalog: Catalog, names: Sequence[str]) -> list[Guest]:
    """Return these guests. Raises UsageError for one with a cloud image."""
    guests = [catalog.guest(name) for name in names]
    for guest in guests:
        if isinstance(guest.image, CloudImage):
            raise UsageError(
                f"{guest.name} is a cloud image, which is not built", hint=f"lab images pull {guest.name}"
            )
    return guests


def inputs_digest(guest: Guest) -> str:
    """Return the SHA-256 of everything that determines an image's content, except the state of the mirror."""
    image = guest.image
    inputs = cloud.inputs(image) if isinstance(image, CloudImage) else debian.inputs(image)
    return hashlib.sha256(inputs).hexdigest()


def check(image: BaseImage) -> None:
    """Raise ImageNotAvailable if a file of the image changed since it was stored.

    Every lane calls this, so a file is read only if its size or time differs.
    """
    for name, stored in image.manifest.files.items():
        try:
            status = (image.folder / name).stat()
        except OSError:
            status = None
        if status and (status.st_size, status.st_mtime_ns) == (stored.size, stored.modified_ns):
            continue
        if status is None or sha256(image.folder / name) != stored.sha256:
            raise ImageNotAvailable(
                f"{image.folder / name} was changed since it was stored",
                hint="run lab images verify, which sets it aside; the next use fetches or builds it again",
            )


def read(folder: Path) -> BaseImage | None:
    """Return the image in a folder, if there is one. Raises LabError if it cannot be read."""
    try:
        manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes())
        return BaseImage(folder, manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LabError(
            f"{folder / MANIFEST} cannot be read: {one_line(error)}",
            hint=f"delete it with rm -r {folder}; the next use fetches or builds it again",
        ) from error


def _folder(paths: Paths, guest: Guest) -> Path:
    return paths.images / f"{guest.name}-{inputs_digest(guest)[:16]}"


def _disk_folder(paths: Paths, sha256: str) -> Path:
    return paths.images / f"{PUBLISHED}{sha256}"


def _copy(file: Path, form: str, copy: Path) -> None:
    """Copy a disk, converting it to qcow2, which the guests' overlays need."""
    if form == "raw":
        command: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", file, copy]
        process.run(command, timeout=CONVERT_SECONDS)
        return
    try:
        shutil.copyfile(file, copy)
    except OSError as error:
        raise LabError(f"{file} cannot be copied into the store: {error.strerror}") from error


def _build(paths: Paths, guest: Guest, image: DebianImage, folder: Path, say: Say) -> BaseImage:
    download.check_room(paths.images, BUILD_FREE_BYTES, f"building {guest.name}")

    def fill(partial: Path) -> float:
        return debian.build(image, partial, say, timeout=BUILD_SECONDS)

    return place(folder, guest.name, inputs_digest(guest), f"built from Debian {image.suite}", fill)


def _pull(paths: Paths, guest: Guest, image: CloudImage, say: Say) -> BaseImage:
    started = time.monotonic()
    want = cloud.resolve_disk(guest, image, say)
    paths.make(paths.images)
    lock = paths.make(paths.downloads) / f"{want.name}.lock"
    with locked(lock, DOWNLOAD_SECONDS, "this image to be downloaded", say):
        # Folders are named by SHA-256. With another algorithm, look at the disk that the guest uses now.
        by_sha256 = want.algorithm == "sha256"
        stored = read(_disk_folder(paths, want.digest)) if by_sha256 else find(paths, guest)
        if stored:
            check(stored)
            _remember(paths, guest, stored)
            return replace(stored, firmware=image.firmware)
        file = cloud.fetch(want, paths.downloads, say)
        image_in_store = _store_disk(paths, guest, file, want.url, started, say)
        download.forget(file)
        return image_in_store


def _store_disk(paths: Paths, guest: Guest, file: Path, source: str, started: float, say: Say) -> BaseImage:
    """Move a verified disk into the store, and remember that the guest uses it."""
    digest_of_disk = sha256(file)
    folder = _disk_folder(paths, digest_of_disk)

    def fill(partial: Path) -> float:
        file.rename(partial / DISK)
        return time.monotonic() - started

    with locked(folder.with_name(f"{folder.name}.lock"), BUILD_SECONDS, "this image to be stored", say):
        stored = read(folder)
        if stored:
            check(stored)
        image = stored or place(folder, guest.name, inputs_digest(guest), source, fill)
    _remember(paths, guest, image)
    return replace(image, firmware=cloud_image(guest).firmware)


def _remember(paths: Paths, guest: Guest, image: BaseImage) -> None:
    chosen = Choice(inputs_digest(guest), image.manifest.disk_sha256)
    remember(paths, guest.name, chosen)


def place(
    folder: Path, guest: str, inputs: str, source: str, fill: Callable[[Path], float], *, base: str = ""
) -> BaseImage:
    """Fill a temporary folder beside the images, then rename it, so that only a finished image has its name.

    `fill` writes the files into a folder and returns the seconds that it took; `inputs` is the digest of
    everything that determines their content, `base` the digest of the disk that it was prepared from.
    Raises what `fill` raises, and LabError; nothing is stored then.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    debian.remove_workspace(partial)
    partial.mkdir()
    try:
        seconds = fill(partial)
        files = {file.name: _describe(file) for file in partial.iterdir()}
        manifest = Manifest(
            guest=guest,
            inputs=inputs,
            disk_sha256=files[DISK].sha256,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            source=source,
            files=files,
            base=base,
        )
        (partial / MANIFEST).write_bytes(_MANIFEST.dump_json(manifest, indent=2) + b"\n")
        seal(partial)
        # A folder of that name without a manifest is not an image.
        debian.remove_workspace(folder)
        put_in_place(partial, folder)
    except OSError as error:
        debian.remove_workspace(partial)
        # A copy that fails names its source first.
        file = error.filename2 or error.filename or folder
        raise LabError(
            f"storing {guest} failed and its files were deleted: {error.strerror}: {file}",
            hint="free some disk space and run the same command again",
        ) from error
    except BaseException:
        debian.remove_workspace(partial)
        raise
    return BaseImage(folder, manifest)


def _describe(file: Path) -> StoredFile:
    status = file.stat()
    return StoredFile(sha256=sha256(file), size=status.st_size, modified_ns=status.st_mtime_ns)


# -- the disks that were chosen


def chosen_disk(paths: Paths, guest: str) -> Choice | None:
    """Return the disk that was chosen for a guest, if any. Raises LabError if the file is damaged."""
    return _read_choices(paths.images / CHOICES).get(guest)


def remember(paths: Paths, guest: str, choice: Choice) -> None:
    """Let the guest use this disk from now on."""
    file = paths.images / CHOICES
    with FileLock(file.with_suffix(".lock")):
        choices = _read_choices(file) | {guest: choice}
        write_atomically(file, _CHOICES.dump_json(choices, indent=2).decode() + "\n")


def _read_choices(file: Path) -> dict[str, Choice]:
    try:
        return _CHOICES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LabError(
            f"{file} cannot be read: {one_line(error)}", hint=f"rm {file}, and pull the images again"
        ) from error


# -- from another host


class DamagedImage(LabError):
    """What another host sent is not the image that was asked for."""


def receive(paths: Paths, content: Content, bring: Bring, say: Say, *, origin: str) -> BaseImage:
    """Return the image with this content; bring it first if it is not stored. Two lanes at once do this once.

    It is put beside an image that this host made from the same definition. `origin` is where it comes from.
    Raises LabError; nothing is stored then.
    """
    if image := by_content(paths, content.digest):
        check(image)
        return image
    paths.make(paths.images)
    name = f"{received_name(content.guest, content.inputs)}-{content.digest[:16]}"
    with locked(paths.images / f"{name}.lock", RECEIVE_SECONDS, "this image to arrive", say):
        if image := by_content(paths, content.digest):
            return image

        def fill(partial: Path) -> float:
            started = time.monotonic()
            for file, known in content.files.items():
                bring(file, partial / file)
                if (digest := sha256(partial / file)) != known.sha256:
                    raise DamagedImage(
                        f"{file} of {content.guest} arrived damaged: its sha256 is {digest[:12]}, "
                        f"not {known.sha256[:12]}"
                    )
            return time.monotonic() - started

        made = plain(content.source).partition("; from ")[0]
        source = f"{made}; from {origin}".removeprefix("; ")
        folder = paths.images / name
        return place(folder, content.guest, content.inputs, source, fill, base=content.base)
