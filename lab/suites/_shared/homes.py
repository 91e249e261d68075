"""Homes of boxlite for tests, and what is kept of them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


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
