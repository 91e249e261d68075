"""Fixtures of the suite, which runs in the guest. LAB_ROOTFS names an OCI image layout that boxes boot."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxlite import Boxlite, Options


@pytest.fixture
def home() -> Iterator[Path]:
    """A boxlite home that only this test uses.

    It is directly below the user's home, because boxlite puts sockets inside it and the path of a Unix socket
    has at most 108 bytes. Logs and the files of failed boxes are evidence: they are not deleted.
    """
    folder = Path(tempfile.mkdtemp(prefix="box-", dir=Path.home()))
    yield folder
    for entry in folder.iterdir():
        if entry.name not in ("logs", "boxes"):
            shutil.rmtree(entry, ignore_errors=True)
    for disk in folder.glob("boxes/*/disks"):
        shutil.rmtree(disk, ignore_errors=True)


@pytest.fixture
def runtime(home: Path) -> Boxlite:
    return Boxlite(Options(home_dir=str(home)))


@pytest.fixture
def rootfs() -> str:
    return os.environ["LAB_ROOTFS"]
