"""Fixtures of the suite, which runs in the guest. LAB_ROOTFS names an OCI image layout that boxes boot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from boxes import Boxes
from shared_home import home, images, shared_home

__all__ = ["home", "images", "shared_home"]


@pytest.fixture
def boxes(home: Path, images: str | None, record_property: Callable[[str, object], None]) -> Iterator[Boxes]:
    """Boxes in the test's home. None of them outlives the test, whatever boxlite did."""
    boxes = Boxes(home, os.environ["LAB_ROOTFS"], images, record_property)
    yield boxes
    boxes.end()


@pytest.fixture
def host_folder() -> Iterator[Path]:
    """A folder for volumes, below the user's home: the jailer's sandbox has a /tmp of its own."""
    with TemporaryDirectory(prefix="volumes-", dir=Path.home()) as folder:
        yield Path(folder)
