"""Images that come from another host: brought file by file, verified, and only then stored."""

import time
from collections.abc import Callable
from pathlib import Path

from lab.base.errors import LabError
from lab.base.files import plain, sha256
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.images import store
from lab.images.content import Content
from lab.images.download import Say
from lab.images.store import BaseImage

# Another lane may be bringing the same image: a disk of 1 GiB at 300 KiB/s.
LOCK_SECONDS = 3600.0

# Brings a file of an image, by its name, to a path. Raises LabError, OSError.
Bring = Callable[[str, Path], None]


class DamagedImage(LabError):
    """What another host sent is not the image that was asked for."""


def receive(paths: Paths, content: Content, bring: Bring, say: Say, *, origin: str) -> BaseImage:
    """Return the image with this content; bring it first if it is not stored. Two lanes at once do this once.

    It is put beside an image that this host made from the same definition. `origin` is where it comes from.
    Raises LabError; nothing is stored then.
    """
    if found := store.by_content(paths, content.digest):
        store.check(found)
        return found
    paths.make(paths.images)
    name = f"{store.received_name(content.guest, content.inputs)}-{content.digest[:16]}"
    with locked(paths.images / f"{name}.lock", LOCK_SECONDS, "this image to arrive", say):
        if found := store.by_content(paths, content.digest):
            return found

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
        return store.place(folder, content.guest, content.inputs, source, fill, base=content.base)
