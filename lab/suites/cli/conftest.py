"""Fixtures of the suite, which runs in the guest. LAB_ROOTFS names an OCI image layout that boxes boot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import registry
from boxes import Boxes, Program, needs_registry
from homes import home

__all__ = ["home"]


@pytest.fixture(scope="session")
def images() -> Iterator[str | None]:
    """The address of a registry, if this release needs one: all of its images are LAB_ROOTFS."""
    with registry.serving(needed=needs_registry()) as address:
        yield address


@pytest.fixture
def boxes(home: Path, images: str | None, record_property: Callable[[str, object], None]) -> Boxes:
    """Boxes in the test's home; pytest-reportlog writes what is recorded into the results."""
    return Boxes(Program(home, images), home, os.environ["LAB_ROOTFS"], record_property)
