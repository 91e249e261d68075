"""Overlays: disks that hold what a guest writes, on top of an image that never changes."""

import json
from pathlib import Path

from lab.base import process
from lab.base.errors import UsageError


def create(overlay: Path, backing: Path, *, gib: int | None = None) -> None:
    """Create an empty overlay over `backing`, with its size or `gib` GiB. Raises LabError.

    Only the owner may read it, because the guest writes its private keys into it. libvirt makes QEMU's user the
    owner when the machine starts.
    """
    overlay.unlink(missing_ok=True)
    # qemu-img keeps the mode of a file that exists.
    overlay.touch(0o600)
    size = [] if gib is None else [_size(backing, gib)]
    process.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay, *size],
        timeout=60,
    )


def put_over(overlay: Path, backing: Path) -> None:
    """Tell an overlay that its image is now at `backing`. Raises LabError."""
    process.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay],
        timeout=60,
    )


def _size(backing: Path, gib: int) -> str:
    """The size for qemu-img. Raises UsageError for one that would cut off the end of the last partition."""
    own = json.loads(process.run(["qemu-img", "info", "--output=json", backing], timeout=60))["virtual-size"]
    if gib * 2**30 < own:
        raise UsageError(
            f"disk_gib = {gib} is less than the {own / 2**30:.1f} GiB of the image's own disk ({backing})",
            hint=f"set disk_gib to at least {-(-own // 2**30)} in the guest's definition",
        )
    return f"{gib}G"
