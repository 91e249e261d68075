"""The images of a run: one for each guest, pinned by its digest, in the coordinator's store.

A host that lacks one gets it over SFTP. An image that still has to be prepared is prepared by the host that
runs the first part of its guest; the coordinator fetches it from there.
"""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from lab.base.activity import UNWATCHED, Task
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.locks import hold_lock
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.fleet.login import Login
from lab.images import store
from lab.images.download import check_room
from lab.images.store import BaseImage, ImageManifest
from lab.lane import prepare_image

# How long another part of the host may wait for the same image: 1 GiB at 150 KiB/s.
ARRIVE_SECONDS = 7200.0
# How often a host looks whether it has arrived.
LOOK_SECONDS = 0.5
# Where the files of an image arrive, in a folder `.partial-...` of a host's store.
ARRIVING = "arriving-"


# -- the coordinator


def pin_image(paths: Paths, guest: Guest, task: Task, *, offline: bool) -> tuple[BaseImage, bool]:
    """Return the guest's image, built or downloaded if need be, and whether lanes can start from it as it is.

    Raises ImageNotAvailable, LabError.
    """
    if reason := prepare_image.explain_absent_images(paths, [guest], offline=offline).get(guest.name):
        raise ImageNotAvailable(reason, hint=prepare_image.WHEN_ABSENT)
    image = store.ensure_image(paths, guest, task, offline=offline)
    ready = prepare_image.find_prepared_image(paths, guest, image)
    return ready or image, ready is not None


def push_image(login: Login, image: BaseImage, folder: str) -> None:
    """Copy the files of an image into a folder of a host, where a part waits for them. Raises LabError."""
    with login.files(f"bring the image of {image.manifest.guest}; is the disk full there?") as files:
        for name in image.manifest.files:
            files.put(str(image.folder / name), f"{folder}/{name}")


def fetch_image(paths: Paths, login: Login, manifest: ImageManifest, folder: str) -> BaseImage:
    """Take over an image that a host has prepared in a folder of its store. Raises LabError."""
    check_room(paths.make(paths.images), manifest.size, f"the image of {manifest.guest}")
    with login.files(f"fetch the image of {manifest.guest}") as files:

        def bring(name: str, to: Path) -> None:
            files.get(f"{folder}/{name}", str(to))

        return store.receive_image(paths, manifest, bring, UNWATCHED, origin=f"host {login.name}")


# -- a host

# Why the coordinator could not bring an image, by the folder for which it was asked.
_failures: dict[str, str] = {}


def report_failure(folder: str, reason: str) -> None:
    """Have the part of this host fail that waits for an image in a folder. Called by the coordinator."""
    _failures[folder] = reason


def await_image(
    paths: Paths, manifest: ImageManifest, ask: Callable[[str], None], stop: threading.Event
) -> None:
    """Have an image in the store of this host; `ask` has it brought to a folder here. Raises LabError.

    Nothing tells this host that the image is there: it looks, because a message can be lost.
    """
    name = f"{ARRIVING}{manifest.digest}"
    # While this lock is held, the folder is not one that a dead lab left.
    lock = paths.make(paths.images) / f"{name}.lock"
    with hold_lock(lock, ARRIVE_SECONDS, "this image to arrive", UNWATCHED):
        if store.find_image_by_content(paths, manifest.digest):
            return
        arriving = paths.images / f".partial-{name}"
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir()
        _failures.pop(str(arriving), None)
        ask(str(arriving))
        while not _is_complete(arriving, manifest):
            if reason := _failures.get(str(arriving)):
                raise LabError(reason)
            if stop.wait(LOOK_SECONDS):
                raise LabError("interrupted")

        def bring(file: str, to: Path) -> None:
            shutil.move(arriving / file, to)

        store.receive_image(paths, manifest, bring, UNWATCHED, origin="a run's coordinator")
        shutil.rmtree(arriving, ignore_errors=True)


def _is_complete(folder: Path, manifest: ImageManifest) -> bool:
    """Whether each file of an image is in a folder, and as long as it has to be.

    SFTP writes from front to back.
    """
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    return sizes == {name: stored.size for name, stored in manifest.files.items()}
