"""The store of base images. Images are read-only, and only complete ones are stored.

An image is found by its manifest, which says what it was made from. The name of its folder is for people.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, StringConstraints

from lab.base.activity import Task
from lab.base.architecture import ARCHITECTURES, X86_64, Architecture
from lab.base.data import SMALL_FILE, FailFastModel, read_model
from lab.base.errors import ImageNotAvailable, LabError, UsageError
from lab.base.files import clean_text, compute_digest, cut_text, hash_file, put_in_place, seal_folder
from lab.base.locks import hold_lock
from lab.base.paths import Paths
from lab.catalog import Catalog, CloudImage, DebianImage, Firmware, Guest
from lab.images import cloud, debian, disk, download
from lab.record import AT

MANIFEST = "manifest.json"
DISK = "disk.qcow2"
KERNEL, PACKAGES = "vmlinuz", "packages.tsv"
# How the folder of an image begins that came from another host.
RECEIVED = "received-"
# An image takes about 0.2 GiB; during the build, its tree and raw disk need 2 GiB.
BUILD_FREE_BYTES = 3 << 30
BUILD_SECONDS = 1800.0
# The programs of another architecture are emulated while a guest is built: 802 s on a busy host.
FOREIGN_FACTOR = 4
# A disk of 1 GiB at 150 KiB/s.
DOWNLOAD_SECONDS = 7200.0
IMPORT_SECONDS = 1800.0
# Another lane may be bringing the same image from another host: a disk of 1 GiB at 300 KiB/s.
RECEIVE_SECONDS = 3600.0

# Brings a file of an image, by its name, to a path. Raises LabError, OSError.
Bring = Callable[[str, Path], None]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# No path and no hidden file: folders and files are named by these, and a manifest may come from another host.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9@+~=._-]{0,199}$")]


class StoredFile(FailFastModel):
    """A file as it was stored. Size and time show whether it changed; the digest proves it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Digest
    size: int
    modified_ns: int


class ImageManifest(FailFastModel):
    """What the store knows about an image, and what two hosts of a run tell each other about it.

    `inputs` is the digest of the definition that it was made from, `disk_sha256` that of its disk as it was
    stored. `built` is the time at which it was stored, `seconds` how long that took, and `source` where it
    comes from. `base` is the SHA-256 of the disk that a prepared image was prepared from; others have none.
    `arch` is its processor's architecture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    guest: Name
    inputs: Digest
    disk_sha256: Digest
    built: str
    seconds: float
    source: str
    files: dict[Name, StoredFile]
    base: Digest | Literal[""] = ""
    arch: str = X86_64.name

    @property
    def digest(self) -> str:
        """SHA-256 over all files of the image: two images with the same one are the same image."""
        lines = [f"{file.sha256} {name}\n" for name, file in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def packages_digest(self) -> str:
        """SHA-256 of the list of its packages: two builds of one definition with the same list are alike.

        Of its disk, if there is no such list.
        """
        return self.files[PACKAGES].sha256 if PACKAGES in self.files else self.disk_sha256

    @property
    def kernel_digest(self) -> str:
        """SHA-256 of the kernel that a machine loads; empty if the loader on its disk chooses one."""
        return self.files[KERNEL].sha256 if KERNEL in self.files else ""

    @property
    def size(self) -> int:
        """The size of all files, in bytes."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class BaseImage:
    """A complete image in the store. It has a kernel, or `firmware` runs the boot loader on its disk."""

    folder: Path
    manifest: ImageManifest
    firmware: Firmware | None = None

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.manifest.arch]

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def kernel(self) -> Path:
        return self.folder / KERNEL

    @property
    def has_own_kernel(self) -> bool:
        """Whether its guest has its own kernel. Another one says nothing about this host."""
        return AT not in self.manifest.guest

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"


# -- finding


def read_image(folder: Path) -> BaseImage | None:
    """Return the image in a folder. None without one, or if its manifest is damaged: it is made again then."""
    try:
        return BaseImage(folder, read_model(ImageManifest, folder / MANIFEST, SMALL_FILE))
    except (OSError, ValueError):
        return None


def list_images(paths: Paths) -> Iterator[BaseImage]:
    """Iterate over all stored images."""
    for manifest in sorted(paths.images.glob(f"[!.]*/{MANIFEST}")):
        if image := read_image(manifest.parent):
            yield image


def find_image(paths: Paths, guest: Guest) -> BaseImage | None:
    """Return the image that was made from exactly this guest's definition, if it is stored.

    If the guest names its one image, only that will do, whatever it was made from.
    """
    if guest.only_image:
        image = find_image_by_content(paths, guest.only_image)
    else:
        image = find_made_image(paths, guest.name, compute_inputs_digest(guest))
    firmware = guest.image.firmware if isinstance(guest.image, CloudImage) else None
    return replace(image, firmware=firmware) if image else None


def find_made_image(paths: Paths, guest: str, inputs: str) -> BaseImage | None:
    """Return the newest image of a guest that was made from these inputs, if one is stored.

    Those that this host made come before those from other hosts.
    """
    matches = [
        image
        for image in list_images(paths)
        if (image.manifest.guest, image.manifest.inputs) == (guest, inputs)
    ]
    return max(matches, key=lambda image: (not _is_received(image), image.manifest.built), default=None)


def find_image_by_content(paths: Paths, digest: str) -> BaseImage | None:
    """Return the stored image with this content."""
    return next((image for image in list_images(paths) if image.manifest.digest == digest), None)


def find_any_image(paths: Paths) -> BaseImage | None:
    """Return any stored image of this host's architecture that has a kernel, which is its guest's own."""
    return next(
        (
            image
            for image in list_images(paths)
            if image.has_own_kernel and image.kernel.exists() and image.architecture.is_hosts
        ),
        None,
    )


def _is_received(image: BaseImage) -> bool:
    return image.folder.name.startswith(RECEIVED)


def compute_inputs_digest(guest: Guest) -> str:
    """Return the SHA-256 of everything that determines an image's content, except the state of the mirror."""
    image = guest.image
    if isinstance(image, CloudImage):
        return hashlib.sha256(cloud.collect_cloud_inputs(image)).hexdigest()
    return hashlib.sha256(debian.collect_debian_inputs(image, guest.architecture)).hexdigest()


def check_image(image: BaseImage) -> None:
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
        if status is None or hash_file(image.folder / name) != stored.sha256:
            raise ImageNotAvailable(
                f"{image.folder / name} was changed since it was stored",
                hint="run lab images verify, which sets it aside; the next use fetches or builds it again",
            )


# -- making


def ensure_image(paths: Paths, guest: Guest, task: Task, *, offline: bool = False) -> BaseImage:
    """Return the guest's image; build or download it first if it is not stored. Two labs at once do this once.

    `task` sees how far that is; `offline` forbids use of the network. Raises ImageNotAvailable, and
    LabError when a build fails; nothing is stored then.
    """
    if image := find_image(paths, guest):
        check_image(image)
        return image
    if guest.only_image:
        raise ImageNotAvailable(f"the image that the run uses is not in the store: {guest.only_image[:16]}")
    is_cloud = isinstance(guest.image, CloudImage)
    if offline:
        raise ImageNotAvailable(
            "the image is not in the store, and --offline forbids fetching it",
            hint="run without --offline"
            + (f", or: lab images import FILE --as {guest.name}" if is_cloud else ""),
        )
    return update_image(paths, guest, task) if is_cloud else _build(paths, guest, task)


def _build(paths: Paths, guest: Guest, task: Task) -> BaseImage:
    """Build the image, unless another lab does so meanwhile."""
    assert isinstance(guest.image, DebianImage)
    image, inputs = guest.image, compute_inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{inputs[:16]}"
    seconds = BUILD_SECONDS * (1 if guest.architecture.is_hosts else FOREIGN_FACTOR)
    with hold_lock(folder.with_name(f"{folder.name}.lock"), seconds, "this image to be built", task):
        if built := read_image(folder):
            return built
        download.check_room(paths.images, BUILD_FREE_BYTES, f"building {guest.name}")

        def fill(partial: Path) -> None:
            debian.build_image(image, partial, task, timeout=seconds, architecture=guest.architecture)

        with_kernel = f" with {image.kernel.name}" if image.kernel else ""
        return place_image(
            folder, guest.name, inputs, f"built from Debian {image.suite}{with_kernel}", fill, arch=guest.arch
        )


def update_image(paths: Paths, guest: Guest, task: Task) -> BaseImage:
    """Return the newest build that a cloud guest's definition allows, downloaded if it is not stored.

    Raises ImageNotAvailable, LabError.
    """
    started, image = time.monotonic(), get_cloud_image(guest)
    published = cloud.resolve_disk(guest, image, task)
    lock = paths.make(paths.downloads) / f"{published.name}.lock"
    with hold_lock(lock, DOWNLOAD_SECONDS, "this image to be downloaded", task):
        stored = find_image(paths, guest)
        # Manifests have the SHA-256. If the distribution has another digest, it is part of the definition.
        if stored and (published.algorithm != "sha256" or published.digest == stored.manifest.disk_sha256):
            check_image(stored)
            return stored
        file = cloud.fetch_disk(published, paths.downloads, task)
        return _store_disk(paths, guest, file, published.url, started, task)


def import_image(paths: Paths, guest: Guest, file: Path, task: Task) -> BaseImage:
    """Copy a disk into the store as a guest's image. Raises UsageError if the disk cannot be this guest's."""
    image = get_cloud_image(guest)
    started = time.monotonic()
    if wrong := disk.explain_unusable(file):
        raise UsageError(f"{file}: {wrong}", hint="import a disk as the distribution publishes it")
    if image.digest:
        algorithm, _, pinned = image.digest.partition(":")
        if compute_digest(file, algorithm) != pinned:
            raise UsageError(f"{file} does not have the digest that images/{guest.name}.toml pins")
    copy = paths.make(paths.downloads) / "import.qcow2"
    with hold_lock(copy.with_suffix(".lock"), IMPORT_SECONDS, "this image to be imported", task):
        try:
            shutil.copyfile(file, copy)
            return _store_disk(paths, guest, copy, f"imported from {file.name}", started, task)
        except OSError as error:
            raise LabError(f"{file} cannot be copied into the store: {error.strerror}") from error
        finally:
            copy.unlink(missing_ok=True)


def _store_disk(paths: Paths, guest: Guest, file: Path, source: str, started: float, task: Task) -> BaseImage:
    """Move a verified disk into the store as the guest's image, unless it is that already."""
    digest_of_disk, inputs = hash_file(file), compute_inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{digest_of_disk[:16]}"

    def fill(partial: Path) -> None:
        file.rename(partial / DISK)

    with hold_lock(folder.with_name(f"{folder.name}.lock"), BUILD_SECONDS, "this image to be stored", task):
        used = find_image(paths, guest)
        if used and used.manifest.disk_sha256 == digest_of_disk:
            check_image(used)
            return used
        image = place_image(folder, guest.name, inputs, source, fill, arch=guest.arch, started=started)
    return replace(image, firmware=get_cloud_image(guest).firmware)


def get_cloud_image(guest: Guest) -> CloudImage:
    """Return the image definition of a cloud guest. Raises UsageError for any other guest."""
    if not isinstance(guest.image, CloudImage):
        raise UsageError(
            f"the image of {guest.name} is built locally", hint=f"run: lab images build {guest.name}"
        )
    return guest.image


def choose_pulled_guests(catalog: Catalog, names: Sequence[str]) -> list[Guest]:
    """Return these guests, or all with a cloud image. Raises UsageError for one whose image is built."""
    if not names:
        return [guest for guest in catalog.guests.values() if isinstance(guest.image, CloudImage)]
    guests = [catalog.guest(name) for name in names]
    for guest in guests:
        get_cloud_image(guest)
    return guests


def choose_built_guests(catalog: Catalog, names: Sequence[str]) -> list[Guest]:
    """Return these guests. Raises UsageError for one with a cloud image."""
    guests = [catalog.guest(name) for name in names]
    for guest in guests:
        if isinstance(guest.image, CloudImage):
            raise UsageError(
                f"{guest.name} is a cloud image, which is not built", hint=f"lab images pull {guest.name}"
            )
    return guests


def place_image(
    folder: Path,
    guest: str,
    inputs: str,
    source: str,
    fill: Callable[[Path], object],
    *,
    arch: str = X86_64.name,
    base: str = "",
    started: float | None = None,
) -> BaseImage:
    """Fill a temporary folder beside the images, then rename it, so that only a finished image has its name.

    `fill` writes the files into a folder; `inputs` is the digest of everything that determines their content,
    `base` the digest of the disk that it was prepared from. `started` is the monotonic time at which the work
    began, if that was earlier. Raises what `fill` raises, and LabError; nothing is stored then.
    """
    started = time.monotonic() if started is None else started
    partial = folder.with_name(f".partial-{folder.name}")
    debian.remove_workspace(partial)
    partial.mkdir()
    try:
        fill(partial)
        seconds = time.monotonic() - started
        files = {}
        for file in partial.iterdir():
            status = file.stat()
            files[file.name] = StoredFile(
                sha256=hash_file(file), size=status.st_size, modified_ns=status.st_mtime_ns
            )
        manifest = ImageManifest(
            guest=guest,
            inputs=inputs,
            disk_sha256=files[DISK].sha256,
            built=datetime.now(UTC).isoformat(),
            seconds=round(seconds, 1),
            source=source,
            files=files,
            base=base,
            arch=arch,
        )
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        seal_folder(partial)
        # A folder of that name without a manifest, or with a damaged one, is not an image.
        debian.remove_workspace(folder)
        put_in_place(partial, folder)
    except BaseException as error:
        debian.remove_workspace(partial)
        if not isinstance(error, OSError):
            raise
        # A copy that fails names its source first.
        where = error.filename2 or error.filename or folder
        raise LabError(
            f"storing {guest} failed and its files were deleted: {error.strerror}: {where}",
            hint="free some disk space and run the same command again",
        ) from error
    return BaseImage(folder, manifest)


# -- from another host


def receive_image(paths: Paths, sent: ImageManifest, bring: Bring, task: Task, *, origin: str) -> BaseImage:
    """Return the image with this manifest; bring it first if it is not stored. Two lanes at once do this once.

    It is put beside an image that this host made from the same definition. `origin` is where it comes from.
    Raises LabError; nothing is stored then.
    """
    name = f"{RECEIVED}{sent.guest}-{sent.inputs[:16]}-{sent.digest[:16]}"
    lock = paths.make(paths.images) / f"{name}.lock"
    with hold_lock(lock, RECEIVE_SECONDS, "this image to arrive", task):
        if image := find_image_by_content(paths, sent.digest):
            check_image(image)
            return image

        def fill(partial: Path) -> None:
            for file, expected in sent.files.items():
                bring(file, partial / file)
                if (actual := hash_file(partial / file)) != expected.sha256:
                    raise LabError(
                        f"{file} of {sent.guest} arrived damaged: its sha256 is {actual[:12]}, "
                        f"not {expected.sha256[:12]}"
                    )

        first_source = cut_text(clean_text(sent.source), 400).partition("; from ")[0]
        source = f"{first_source}; from {origin}".removeprefix("; ")
        return place_image(
            paths.images / name, sent.guest, sent.inputs, source, fill, arch=sent.arch, base=sent.base
        )
