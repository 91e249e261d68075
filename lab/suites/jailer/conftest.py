"""Fixtures of the suite, which runs in the guest. LAB_ROOTFS names an OCI image layout that boxes boot."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registry
from boxes import NEEDS_REGISTRY, Boxes, runtime


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


@pytest.fixture(scope="session")
def rootfs() -> str:
    return os.environ["LAB_ROOTFS"]


@pytest.fixture(scope="session")
def images(rootfs: str) -> Iterator[str | None]:
    """The address of a registry, if this release needs one: all of its images are LAB_ROOTFS."""
    if not NEEDS_REGISTRY:
        yield None
        return
    with registry.serving(Path(rootfs)) as address:
        yield address


@pytest.fixture
def boxes(home: Path, rootfs: str, images: str | None, record_property: Callable[[str, object], None]) -> Boxes:
    """Boxes of a runtime in the test's home; pytest-reportlog writes what is recorded into the results."""
    return Boxes(runtime(home, images), home, rootfs, record_property)
