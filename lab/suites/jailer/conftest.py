"""Runs in the guest: what the tests share. Needs boxlite, pytest and LAB_ROOTFS, an OCI image layout."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxlite import Boxlite, Options


@pytest.fixture
def home() -> Iterator[Path]:
    """A boxlite home of the test's own.

    Directly below the user's home, because boxlite's sockets inside it must keep to the 108 bytes of a
    Unix socket's path. Its logs, and what boxlite keeps of a box that failed, are evidence and stay.
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
