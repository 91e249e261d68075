"""The store as a whole: what is in it, is it still what was stored, and what of it nobody needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lab.base.errors import LabError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.catalog import Catalog
from lab.images import debian, store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.record import RESULTS_FILE

# What `verify` puts before the name of an image that is none any more.
CHANGED = ".changed-"


@dataclass(frozen=True)
class Unused:
    """Something in the store that can go, and its size in bytes."""

    path: Path
    size: int


def users(paths: Paths, catalog: Catalog) -> dict[Path, list[str]]:
    """The guests of the catalog by the folders of the images that they use, prepared ones among them."""
    found: dict[Path, list[str]] = {}
    for guest in catalog.guests.values():
        image = store.find(paths, guest)
        ready = prepare_image.find(paths, guest, image) if image else None
        for folder in dict.fromkeys(each.folder for each in (image, ready) if each):
            found.setdefault(folder, []).append(guest.name)
    return found


def size(path: Path) -> int:
    """How much room a file or a folder takes, in bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def verify(paths: Paths) -> Iterator[tuple[BaseImage, str]]:
    """Read every file of every image again; each image with what is wrong with it, or with nothing.

    One that is not what was stored is set aside, so that nothing uses it.
    """
    for image in list(store.images(paths)):
        wrong = _wrong(image)
        if wrong:
            aside = image.folder.with_name(CHANGED + image.folder.name)
            debian.remove_workspace(aside)
            image.folder.rename(aside)
            wrong += f"; set aside as {aside}"
        yield image, wrong


def _wrong(image: BaseImage) -> str:
    # Images that an older lab built know the digest of their disk only.
    known = {name: file.sha256 for name, file in image.manifest.files.items()}
    known.setdefault(store.DISK, image.manifest.disk_sha256)
    for name, expected in known.items():
        try:
            found = sha256(image.folder / name)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if found != expected:
            return f"{name} was changed: its sha256 is {found} and was {expected}"
    return ""


def prune(paths: Paths, catalog: Catalog, *, dry_run: bool) -> list[Unused]:
    """Remove what no guest of the catalog and no run uses, half downloads among it; what it was.

    Runs are those in the lab's own place. Raises LabError while a lab runs guests: they hold on to images.
    """
    alive = sorted(folder.name for folder in paths.lanes.glob("lab-*"))
    if alive:
        raise LabError(f"guests are running: {', '.join(alive)}", hint="prune when they are done")
    unused = [Unused(path, size(path)) for path in _unused(paths, catalog)]
    for each in [] if dry_run else unused:
        if each.path.is_dir():
            debian.remove_workspace(each.path)
        else:
            each.path.unlink()
    return unused


def _unused(paths: Paths, catalog: Catalog) -> Iterator[Path]:
    used = users(paths, catalog)
    recorded = [file.read_text() for file in paths.runs.glob(f"*/{RESULTS_FILE}")]
    for image in store.images(paths):
        if image.folder not in used and not any(image.manifest.disk_sha256 in text for text in recorded):
            yield image.folder
    yield from sorted(paths.images.glob(f"{CHANGED}*"))
    for partial in sorted(paths.images.glob(".partial-*")):
        if not _at_work(paths.images / f"{partial.name.removeprefix('.partial-')}.lock"):
            yield partial
    for file in sorted(paths.downloads.glob("[!.]*")):
        if file.suffix != ".lock" and not _at_work(paths.downloads / f"{file.name.partition('.')[0]}.lock"):
            yield file


def _at_work(lock: Path) -> bool:
    """Whether a lab is at work on what this lock is for."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
