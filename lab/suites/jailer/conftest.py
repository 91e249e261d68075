"""Fixtures of the suite, which runs in the guest. LAB_ROOTFS names an OCI image layout that boxes boot."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from boxes import Boxes
from shared_home import SharedHome, home, images, shared_home

__all__ = ["home", "images", "shared_home"]


@pytest.fixture
def boxes(home: Path, shared_home: SharedHome, record_property: Callable[[str, object], None]) -> Boxes:
    """Boxes of the runtime in the test's home; pytest-reportlog writes what is recorded into the results."""
    return Boxes(shared_home.runtime, home, os.environ["LAB_ROOTFS"], record_property)
