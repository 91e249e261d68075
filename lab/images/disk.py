"""What a disk file is, as QEMU sees it."""

import json
from pathlib import Path

from lab.base import process
from lab.base.errors import LabError

SECONDS = 60.0


class NotADisk(LabError):
    """A file that no guest can start from; the message says what it is instead."""


def form(file: Path) -> str:
    """`qcow2` or `raw`. Raises NotADisk for anything else, and for a disk that is not whole by itself."""
    try:
        told = json.loads(process.run(["qemu-img", "info", "--output=json", file], timeout=SECONDS))
    except (process.CommandFailed, ValueError) as error:
        raise NotADisk(f"cannot be read as a disk: {error}") from error
    kind = str(told.get("format"))
    if kind == "raw":
        # To QEMU any file is a raw disk. One that firmware starts from has this mark, with GPT too:
        # https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html#protective-mbr
        with file.open("rb") as stream:
            if stream.read(512)[510:] != b"\x55\xaa":
                raise NotADisk("neither a qcow2 disk nor a raw one with a partition table")
    elif kind != "qcow2":
        raise NotADisk(f"a disk of the form {kind}; qemu-img converts it to qcow2")
    # What it names outside of itself would be read from this host.
    if "backing-filename" in told or "data-file" in told.get("format-specific", {}).get("data", {}):
        raise NotADisk("a part of a disk only: it names another file")
    return kind
