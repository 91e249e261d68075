"""Images that come from another host: fetched in chunks, verified, and only then stored."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.base.errors import LabError
from lab.base.files import digest, plain
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.catalog import CloudImage, Guest
from lab.images import choice, disk, store
from lab.images.content import DISK, MOST_IMAGES, Content
from lab.images.download import Say, check_room, progress
from lab.images.store import BaseImage

# How much of a file is asked for at a time, in bytes.
CHUNK_BYTES = 4 << 20
# Another lane may be fetching the same image: a disk of 1 GiB at 300 KiB/s.
LOCK_SECONDS = 3600.0
SAY_SECONDS = 2.0

# Returns a chunk of a file of an image, by the file's name and the offset. Raises LabError.
Fetch = Callable[[str, int], bytes]


class DamagedImage(LabError):
    """What another host sent is not the image that it was asked for."""


def offered(paths: Paths) -> list[Content]:
    """The images that other hosts may have from this one; images that cannot be read are left out."""
    return list(_offered(paths))[:MOST_IMAGES]


def _offered(paths: Paths) -> Iterator[Content]:
    chosen = choice.all_remembered(paths)
    for manifest in sorted(paths.images.glob(f"[!.]*/{store.MANIFEST}")):
        try:
            image = store.read(manifest.parent)
            if image is None:
                continue
            content = image.content
        except (LabError, ValueError):
            continue
        if store.is_published(image):
            # Guests may share a disk, and may have had another one before.
            for guest, its in chosen.items():
                if its.sha256 == image.manifest.disk_sha256:
                    yield content.model_copy(update={"guest": guest, "inputs": its.inputs})
        else:
            yield content


def read_chunk(image: BaseImage, name: str, offset: int) -> bytes:
    """A chunk of a file of an image. Raises LabError if it has none there."""
    known = image.manifest.files.get(name)
    if known is None or not 0 <= offset < max(known.size, 1):
        raise LabError(f"the image of {image.manifest.guest} has no byte {offset} of {name[:64]!r}")
    try:
        with (image.folder / name).open("rb") as stream:
            stream.seek(offset)
            return stream.read(CHUNK_BYTES)
    except OSError as error:
        raise LabError(f"{image.folder / name} cannot be read: {error.strerror}") from error


def receive(
    paths: Paths,
    content: Content,
    fetch: Fetch,
    say: Say,
    *,
    check: Callable[[Path], None] | None,
    origin: str,
) -> BaseImage:
    """Return the image with this content; fetch it first if it is not stored. Two lanes at once do this once.

    It is put beside an image that this host made from the same definition. `check` gets its disk before it is
    stored, and raises LabError if that must not be used. `origin` is where it comes from.
    Raises LabError; nothing is stored then.
    """
    if found := store.by_content(paths, content.digest):
        store.check(found)
        return found
    paths.make(paths.images)
    name = f"{store.received_name(content.guest, content.inputs)}-{content.digest[:16]}"
    folder = paths.images / name
    with locked(paths.images / f"{name}.lock", LOCK_SECONDS, "this image to arrive", say):
        if found := store.by_content(paths, content.digest):
            return found
        check_room(paths.images, content.size, f"the image of {content.guest}")

        def fill(partial: Path) -> float:
            started = time.monotonic()
            _fetch_files(content, fetch, partial, say)
            if check:
                check(partial / DISK)
            return time.monotonic() - started

        made = plain(content.source).partition("; from ")[0]
        source = f"{made}; from {origin}".removeprefix("; ")
        return store.place(folder, content.guest, content.inputs, source, fill, base=content.base)


def _fetch_files(content: Content, fetch: Fetch, to: Path, say: Say) -> None:
    started = said = time.monotonic()
    done = 0
    for name, known in content.files.items():
        found, have = hashlib.sha256(), 0
        with (to / name).open("xb") as stream:
            while have < known.size:
                data = fetch(name, have)
                if not data or have + len(data) > known.size:
                    raise DamagedImage(
                        f"{name} of {content.guest} has another size than {known.size} bytes: "
                        f"{len(data)} came at byte {have}"
                    )
                stream.write(data)
                found.update(data)
                have, done = have + len(data), done + len(data)
                now = time.monotonic()
                if now - said >= SAY_SECONDS:
                    said = now
                    say(progress(done, content.size, done, now - started))
        if found.hexdigest() != known.sha256:
            raise DamagedImage(
                f"{name} of {content.guest} arrived damaged: its sha256 is {found.hexdigest()[:12]}, "
                f"not {known.sha256[:12]}"
            )


def check_disk(file: Path, guest: Guest, *, is_prepared: bool = False) -> None:
    """Check a disk from a host that must not have this one's files. Raises DamagedImage.

    It must not refer to other files. Unless it was prepared, it must have the digest that its guest's
    definition pins, if any.
    """
    try:
        disk.check_qcow2(file)
    except disk.NotADisk as error:
        raise DamagedImage(f"{DISK} of {guest.name}: {error.args[0]}") from error
    if isinstance(guest.image, CloudImage) and guest.image.digest and not is_prepared:
        algorithm, _, pinned = guest.image.digest.partition(":")
        if digest(file, algorithm) != pinned:
            raise DamagedImage(f"{DISK} does not have the digest that images/{guest.name}.toml pins")
