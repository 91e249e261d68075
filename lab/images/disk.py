"""Disk files, by qemu-img: what is a disk, and overlays, which hold what a guest writes on top of an image."""

import json
from pathlib import Path
from typing import Any

from lab.base import process
from lab.base.errors import UsageError

SECONDS = 60.0


def explain_unusable(file: Path) -> str:
    """Why no guest can boot from a file; empty if it is a whole qcow2 disk, which refers to no other file."""
    try:
        info = _info(file)
    except (process.CommandFailed, ValueError) as error:
        return f"cannot be read as a disk: {error}"
    if (form := info.get("format")) != "qcow2":
        # QEMU takes any file for a raw disk.
        return f"a disk of the form {form}, not qcow2; convert it with qemu-img convert -O qcow2"
    # QEMU would read the files that it refers to from this host.
    if "backing-filename" in info or "data-file" in info.get("format-specific", {}).get("data", {}):
        return "not a whole disk: it refers to another file"
    return ""


def _info(file: Path) -> dict[str, Any]:
    """What qemu-img says of a disk. Raises CommandFailed, ValueError."""
    info: dict[str, Any] = json.loads(
        process.run_command(["qemu-img", "info", "--output=json", file], timeout=SECONDS)
    )
    return info


def create_overlay(overlay: Path, backing: Path, *, gib: int | None = None) -> None:
    """Create an empty overlay over `backing`, with its size or `gib` GiB. Raises LabError.

    Only the owner may read it, because the guest writes its private keys into it. libvirt makes QEMU's user the
    owner when the machine starts.
    """
    overlay.unlink(missing_ok=True)
    # qemu-img keeps the mode of a file that exists.
    overlay.touch(0o600)
    size = [] if gib is None else [_size(backing, gib)]
    process.run_command(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay, *size],
        timeout=SECONDS,
    )


def rebase_overlay(overlay: Path, backing: Path) -> None:
    """Tell an overlay that its image is now at `backing`. Raises LabError."""
    process.run_command(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay],
        timeout=SECONDS,
    )


def _size(backing: Path, gib: int) -> str:
    """The size for qemu-img. Raises UsageError for one that would cut off the end of the last partition."""
    image_size = _info(backing)["virtual-size"]
    if gib * 2**30 < image_size:
        raise UsageError(
            f"disk_gib = {gib} is less than the {image_size / 2**30:.1f} GiB of the image's own disk "
            f"({backing})",
            hint=f"set disk_gib to at least {-(-image_size // 2**30)} in the guest's definition",
        )
    return f"{gib}G"
