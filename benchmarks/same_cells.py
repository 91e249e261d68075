"""What the ways that `peers.py` measures share: the disk, the script of each cell, and what a way took."""

from dataclasses import dataclass, field
from pathlib import Path

from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images.store import BaseImage

# Of the work: SHA-256 of 32 MiB of zeros.
SCRIPT = """set -eu
echo 0 >/proc/sys/kernel/unprivileged_userns_clone
test "$(cat /proc/sys/kernel/unprivileged_userns_clone)" = 0
found=$(head -c 33554432 /dev/zero | sha256sum)
test "$found" = "83ee47245398adee79bd9c0a8bc57b821e92aba10f5f9ade8a5d1fae4d8c4302  -"
"""


@dataclass
class Measured:
    """What one way took: seconds of each cell, of all with what comes before and after, and QEMU's usage.

    `cells` is empty where the way does not tell them apart.
    """

    wall: float = 0.0
    cpu: float = 0.0
    peak_mib: float = 0.0
    cells: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """What all ways share."""

    paths: Paths
    disk: Path
    guest: Guest
    image: BaseImage
    cells: int
