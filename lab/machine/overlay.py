"""Overlays: what a guest writes, over an image that stays as it is."""

import json
from pathlib import Path

from lab.base import process
from lab.base.errors import UsageError


def create(overlay: Path, backing: Path, *, gib: int | None = None) -> None:
    """An empty overlay over `backing`, as large as that or `gib` GiB. Raises LabError."""
    size = [] if gib is None else [_size(backing, gib)]
    process.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay, *size],
        timeout=60,
    )


def put_over(overlay: Path, backing: Path) -> None:
    """Have an overlay lie over the same image at another place. Raises LabError."""
    process.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay],
        timeout=60,
    )


def _size(backing: Path, gib: int) -> str:
    """A disk that is cut off has lost the end of its last partition: that is refused."""
    own = json.loads(process.run(["qemu-img", "info", "--output=json", backing], timeout=60))["virtual-size"]
    if gib * 2**30 < own:
        raise UsageError(
            f"disk_gib = {gib} is less than the {own / 2**30:.1f} GiB of the image's own disk ({backing})",
            hint=f"set disk_gib to at least {-(-own // 2**30)} in the guest's definition",
        )
    return f"{gib}G"
