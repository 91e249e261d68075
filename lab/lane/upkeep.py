"""The store as a whole: what is in it, whether it is still what was stored, and what nobody needs."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.base import scratch
from lab.base.errors import LabError, format_error
from lab.base.files import hash_file, measure_size
from lab.base.locks import is_locked
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds import checkout
from lab.catalog import Catalog
from lab.images import debian, store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.machine import leftovers, states
from lab.record import DECIDED_FILE, RESULTS_FILE

# The prefix of an image that `verify_images` found changed.
CHANGED = ".changed-"


@dataclass(frozen=True)
class UnusedFolder:
    """Something in the store that can be removed, and its size in bytes."""

    path: Path
    size: int


def list_image_users(paths: Paths, catalog: Catalog) -> dict[Path, list[str]]:
    """The catalog's guests by the folders of the images they use, including prepared images."""
    folders: dict[Path, list[str]] = {}
    for guest in catalog.guests.values():
        image = store.find_image(paths, guest)
        ready = prepare_image.find_prepared_image(paths, guest, image) if image else None
        for folder in dict.fromkeys(used.folder for used in (image, ready) if used):
            folders.setdefault(folder, []).append(guest.name)
    return folders


def verify_images(paths: Paths) -> Iterator[tuple[BaseImage, str]]:
    """Read every file of every image again; gives each image with what is wrong with it, if anything.

    An image that has changed is set aside, so that nothing uses it.
    """
    for image in list(store.list_images(paths)):
        wrong = _find_damage(image)
        if wrong:
            aside = image.folder.with_name(CHANGED + image.folder.name)
            debian.remove_workspace(aside)
            image.folder.rename(aside)
            wrong += f"; set aside as {aside}"
        yield image, wrong


def _find_damage(image: BaseImage) -> str:
    for name, stored in image.manifest.files.items():
        try:
            digest = hash_file(image.folder / name)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if digest != stored.sha256:
            return f"{name} was changed: its sha256 is {digest} and was {stored.sha256}"
    return ""


def prune_store(paths: Paths, catalog: Catalog, *, dry_run: bool) -> list[UnusedFolder]:
    """Remove images that no guest and no run uses, partial downloads, and stored states above the limit.

    Returns what was removed. Only runs in the lab's own folder count. Raises LabError while a lab runs guests,
    because they use images.
    """
    if alive := leftovers.list_lanes(paths):
        raise LabError(
            f"guests are running: {', '.join(alive)}",
            hint="prune when they are done; lab attach --list names those that are kept",
        )
    unused = [UnusedFolder(path, measure_size(path)) for path in _unused(paths, catalog)]
    for item in [] if dry_run else unused:
        if item.path.is_dir():
            debian.remove_workspace(item.path)
        else:
            item.path.unlink()
    return unused


def sweep_leftovers(paths: Paths) -> tuple[list[UnusedFolder], list[str]]:
    """Remove the temporary folders of dead labs, and the images and wheels that they left half-made.

    Returns what was removed, and the paths that could not be removed, each with the reason.
    """
    removed, stuck = [], []
    for folder in _abandoned(paths):
        unused = UnusedFolder(folder, measure_size(folder))
        try:
            debian.remove_workspace(folder)
            removed.append(unused)
        except (LabError, OSError) as error:
            stuck.append(f"{folder}: {format_error(error)}")
    return removed, stuck


def _abandoned(paths: Paths) -> Iterator[Path]:
    """What dead labs were at work in. Each stays locked until the next is asked for."""
    yield from scratch.find_abandoned_folders(Path(tempfile.gettempdir()), scratch.PREFIX)
    for place in (debian.ON_DISK, debian.IN_MEMORY):
        yield from scratch.find_abandoned_folders(place, debian.WORKSPACE)
    yield from scratch.find_abandoned_folders(paths.states, states.PARTIAL)
    yield from _partial(checkout.get_checkout_store(paths))
    yield from _partial(paths.images)
    yield from _partial(wheels.get_wheel_store(paths))


def _partial(parent: Path) -> Iterator[Path]:
    """The folders of images, wheels or checkouts that dead labs were making."""
    for partial in sorted(parent.glob(".partial-*")):
        if not is_locked(parent / f"{partial.name.removeprefix('.partial-')}.lock"):
            yield partial


def _unused(paths: Paths, catalog: Catalog) -> Iterator[Path]:
    used = list_image_users(paths, catalog)
    files = [file for name in (RESULTS_FILE, DECIDED_FILE) for file in paths.runs.glob(f"*/{name}")]
    recorded = [file.read_bytes() for file in files if file.is_file()]
    for folder in sorted(paths.images.glob("[!.]*/")):
        image = store.read_image(folder)
        is_recorded = image and any(image.manifest.disk_sha256.encode() in text for text in recorded)
        if image is None or not (folder in used or is_recorded):
            yield folder
    yield from sorted(paths.images.glob(f"{CHANGED}*"))
    yield from _partial(paths.images)
    yield from (state.folder for state in states.choose_states_above_limit(paths))
    for file in sorted(paths.downloads.glob("[!.]*")):
        if file.suffix != ".lock" and not is_locked(paths.downloads / f"{file.name.partition('.')[0]}.lock"):
            yield file
