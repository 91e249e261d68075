"""Small images in a store, to test with."""

from pathlib import Path

from lab.base import process
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images import store
from lab.images.store import BaseImage

# Two chunks, and a piece of a third one.
INITRD_BYTES = (8 << 20) + 5


def put_image(paths: Paths, guest: Guest, *, kib: int = 1024) -> BaseImage:
    """Store an image as if it had been built from the guest's definition; another size is another image."""

    def fill(folder: Path) -> float:
        command: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", folder / "disk.qcow2"]
        process.run([*command, f"{kib}K"], timeout=60)
        (folder / "vmlinuz").write_text(f"a kernel of {guest.name}, {kib}")
        (folder / "initrd").write_bytes(b"1" * INITRD_BYTES)
        return 1.0

    inputs = store.inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{inputs[:16]}"
    return store.place(folder, guest.name, inputs, "built for a test", fill)
