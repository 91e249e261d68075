"""Detects the format of a disk file, as QEMU sees it."""

import json
from pathlib import Path

from lab.base import process
from lab.base.errors import LabError

SECONDS = 60.0


class NotADisk(LabError):
    """A guest cannot boot from this file; the message says what the file is instead."""


def detect_format(file: Path) -> str:
    """Return `qcow2` or `raw`. Raises NotADisk for other files, and for a disk that refers to another file."""
    try:
        info = json.loads(process.run(["qemu-img", "info", "--output=json", file], timeout=SECONDS))
    except (process.CommandFailed, ValueError) as error:
        raise NotADisk(f"cannot be read as a disk: {error}") from error
    kind = str(info.get("format"))
    if kind == "raw":
        # QEMU accepts any file as a raw disk. A bootable one has this signature, with GPT too:
        # https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html#protective-mbr
        with file.open("rb") as stream:
            if stream.read(512)[510:] != b"\x55\xaa":
                raise NotADisk("neither a qcow2 disk nor a raw disk with a partition table")
    elif kind != "qcow2":
        raise NotADisk(f"a disk of format {kind}; convert it to qcow2 with qemu-img")
    # QEMU would read the files that it refers to from this host.
    if "backing-filename" in info or "data-file" in info.get("format-specific", {}).get("data", {}):
        raise NotADisk("not a whole disk: it refers to another file")
    return kind


def check_qcow2(file: Path) -> None:
    """Raise NotADisk unless the file is a whole qcow2 disk."""
    if (kind := detect_format(file)) != "qcow2":
        raise NotADisk(f"it is a {kind} disk, not qcow2")
