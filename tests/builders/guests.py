"""Images in a store, of guests that are not there."""

import threading
from collections.abc import Callable
from pathlib import Path

from lab import catalog
from lab.base import process
from lab.base.activity import UNWATCHED, Progress, Task
from lab.base.paths import Paths
from lab.catalog import Firmware
from lab.images import store
from lab.images.store import DISK, BaseImage, ImageManifest, StoredFile
from lab.lane import prepare_image

# Two chunks, and a piece of a third one.
INITRD_BYTES = (8 << 20) + 5


def base_image(folder: Path, firmware: Firmware | None = None) -> BaseImage:
    disk = StoredFile(sha256="1" * 64, size=1, modified_ns=1)
    manifest = ImageManifest(
        guest="debian-13",
        inputs="0" * 64,
        disk_sha256=disk.sha256,
        built="today",
        seconds=1.0,
        source="built",
        files={DISK: disk},
    )
    return BaseImage(folder, manifest, firmware)


def task_to(texts: list[str]) -> Task:
    """Long work whose progress goes to a list, as texts."""
    return Task(lambda progress: texts.append(progress.text))


def put_image(paths: Paths, guest: catalog.Guest, *, kib: int = 1024) -> BaseImage:
    """Store an image as if it had been built from the guest's definition; another size is another image."""

    def fill(folder: Path) -> float:
        make_disk(folder / DISK, kib)
        (folder / "vmlinuz").write_text(f"a kernel of {guest.name}, {kib}")
        (folder / "initrd").write_bytes(b"1" * INITRD_BYTES)
        return 1.0

    inputs = store.compute_inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{inputs[:16]}"
    return store.place_image(folder, guest.name, inputs, "built for a test", fill)


def make_disk(file: Path, kib: int = 1024) -> None:
    command: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", file]
    process.run_command([*command, f"{kib}K"], timeout=60)


def put_published(paths: Paths, guest: catalog.Guest, *, kib: int = 1024) -> BaseImage:
    """Store a disk as if a cloud guest's distribution had published it."""
    file = paths.make(paths.downloads) / "published.qcow2"
    make_disk(file, kib)
    return store.import_image(paths, guest, file, UNWATCHED)


def put_prepared(paths: Paths, guest: catalog.Guest, base: BaseImage, *, kib: int = 512) -> BaseImage:
    """Store an image as if it had been prepared from a published one."""

    def fill(folder: Path) -> float:
        make_disk(folder / DISK, kib)
        (folder / "changes.json").write_text("{}\n")
        return 1.0

    inputs = prepare_image.inputs_digest(guest, base)
    folder = paths.make(paths.images) / f"{prepare_image.PREPARED}{guest.name}-{inputs[:16]}"
    disk = base.manifest.disk_sha256
    return store.place_image(folder, guest.name, inputs, "prepared for a test", fill, base=disk)


class TwoLabs:
    """Two labs that want the same image at once; it is `made` by the first, for which the second waits."""

    def __init__(self, made: str) -> None:
        self.wait = f"waiting for this image to be {made}"
        self._at_work, self._waiting = threading.Event(), threading.Event()

    def work(self) -> None:
        """To be called by what only one of them does."""
        self._at_work.set()
        assert self._waiting.wait(30)

    def run(self, ensure: Callable[[Task], BaseImage]) -> list[BaseImage]:
        def show(progress: Progress) -> None:
            if progress.text == self.wait:
                self._waiting.set()

        images: list[BaseImage] = []
        first = threading.Thread(target=lambda: images.append(ensure(UNWATCHED)))
        first.start()
        assert self._at_work.wait(30)
        images.append(ensure(Task(show)))
        first.join(30)
        return images
