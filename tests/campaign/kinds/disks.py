"""The host's disk is full, in one of the folders that the lab writes: each is a small file system."""

import errno
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tests.campaign import private_host
from tests.campaign.home import Home
from tests.campaign.kinds._base import DONE, INCOMPLETE, Fault, Scene

FILLER = "filler"


def fill(folder: Path) -> int:
    """Write a file until the file system is full; its size."""
    size = 0
    with (folder / FILLER).open("wb", buffering=0) as stream:
        for block in (bytes(2**20), bytes(4096)):
            try:
                while True:
                    size += stream.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return size


class _DiskFull(Fault):
    folder: ClassVar[str]
    size: ClassVar[str]
    statuses = frozenset({DONE, INCOMPLETE})

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    @property
    def mounts(self) -> list[Path]:
        return self._mounted

    def prepare(self, home: Home) -> None:
        private_host.mount_tmpfs(home.base / self.folder, self.size)
        self._mounted.append(home.base / self.folder)

    def inject(self, scene: Scene) -> str:
        size = fill(scene.home.base / self.folder)
        return f"filled {self.folder}/ with {size // 2**20} MiB"

    def mend(self, scene: Scene) -> None:
        with suppress(FileNotFoundError):
            (scene.home.base / self.folder / FILLER).unlink()


class RunFolderFull(_DiskFull):
    name = "full-run-folder"
    folder, size = "out", "64M"
    happens = "the disk of the run's folder is full"
    promise = "Exit status 3 with the path; results so far are kept whole, and `--resume` goes on."


class StateFull(_DiskFull):
    name = "full-lanes"
    folder, size = "state", "3G"
    happens = "the disk of the lanes' folders is full"
    promise = "The machine stops at its failed write; the cell is `error` and says how much is free."


class TemporaryFull(_DiskFull):
    name = "full-temporary"
    folder, size = "tmp", "64M"
    happens = "the disk of the temporary files is full"
    promise = "What could not be written is said with its path, exit status 3."


class CacheFull(_DiskFull):
    name = "full-cache"
    folder, size = "cache", "6G"
    boots = True
    happens = "the disk of images and stored states is full, in a run that would store a state"
    promise = "The state is not stored, nothing half-written is left, and the cells run as ever."
