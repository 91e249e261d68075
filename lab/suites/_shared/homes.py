"""Homes of boxlite for tests, and what is kept of them."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def make() -> Path:
    """Make a new boxlite home.

    It is directly below the user's home, because boxlite puts sockets inside it and the path of a Unix socket
    has at most 108 bytes.
    """
    return Path(tempfile.mkdtemp(prefix="box-", dir=Path.home()))


def recorded_security(home: Path, box_id: str) -> Any:
    """The security options of a box, as boxlite recorded them: also those that it chose itself."""
    [database] = home.glob("db/*.db")
    with sqlite3.connect(database) as connection:
        [text] = connection.execute("SELECT json FROM box_config WHERE id = ?", [box_id]).fetchone()
    return json.loads(text)["options"]["advanced"]["security"]


def keep_evidence(home: Path) -> None:
    """Delete what is in a home, except the logs and the files of failed boxes, which are evidence."""
    for entry in home.iterdir():
        if entry.name not in ("logs", "boxes"):
            shutil.rmtree(entry, ignore_errors=True)
    for disk in home.glob("boxes/*/disks"):
        shutil.rmtree(disk, ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """A boxlite home that only this test uses."""
    folder = make()
    yield folder
    keep_evidence(folder)
