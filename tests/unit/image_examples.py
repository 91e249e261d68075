"""Small images in a store, to test with."""

from pathlib import Path

from lab.base import process
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images import store
from lab.images.content import DISK
from lab.images.store import BaseImage
from lab.lane import prepare_image

# Two chunks, and a piece of a third one.
INITRD_BYTES = (8 << 20) + 5


def put_image(paths: Paths, guest: Guest, *, kib: int = 1024) -> BaseImage:
    """Store an image as if it had been built from the guest's definition; another size is another image."""

    def fill(folder: Path) -> float:
        make_disk(folder / DISK, kib)
        (folder / "vmlinuz").write_text(f"a kernel of {guest.name}, {kib}")
        (folder / "initrd").write_bytes(b"1" * INITRD_BYTES)
        return 1.0

    inputs = store.inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{inputs[:16]}"
    return store.place(folder, guest.name, inputs, "built for a test", fill)


def make_disk(file: Path, kib: int = 1024) -> None:
    command: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", file]
    process.run([*command, f"{kib}K"], timeout=60)


def put_published(paths: Paths, guest: Guest, *, kib: int = 1024) -> BaseImage:
    """Store a disk as if a cloud guest's distribution had published it."""
    file = paths.make(paths.downloads) / "published.qcow2"
    make_disk(file, kib)
    return store.import_file(paths, guest, file, lambda _text: None)


def put_prepared(paths: Paths, guest: Guest, base: BaseImage, *, kib: int = 512) -> BaseImage:
    """Store an image as if it had been prepared from a published one."""

    def fill(folder: Path) -> float:
        make_disk(folder / DISK, kib)
        (folder / "changes.json").write_text("{}\n")
        return 1.0

    inputs = prepare_image.inputs_digest(guest, base)
    folder = paths.make(paths.images) / f"{prepare_image.PREPARED}{guest.name}-{inputs[:16]}"
    disk = base.manifest.disk_sha256
    return store.place(folder, guest.name, inputs, "prepared for a test", fill, base=disk)
