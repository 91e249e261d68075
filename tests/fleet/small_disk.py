"""A file system that is full as soon as anything of some size is written."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoMounts(Exception):
    """This user mounts no file systems."""


@contextmanager
def mounted(folder: Path, options: str = "size=64k,nr_inodes=200") -> Iterator[Path]:
    """A small file system at a new folder, with these options of tmpfs. Raises NoMounts."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        raise NoMounts("a small file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
