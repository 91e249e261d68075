"""Fixtures for a boxlite home that tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import homes
import pytest
import registry
from boxlite import Boxlite
from python_api import NEEDS_REGISTRY, runtime


@pytest.fixture(scope="session")
def images() -> Iterator[str | None]:
    """The address of a registry, if this release needs one: all of its images are LAB_ROOTFS."""
    with registry.serving(needed=NEEDS_REGISTRY) as address:
        yield address


class SharedHome:
    """A boxlite home and the one runtime that boxlite allows it, made when first used."""

    def __init__(self, images: str | None) -> None:
        self._images = images
        self._path: Path | None = None
        self._runtime: Boxlite | None = None

    @property
    def path(self) -> Path:
        if self._path is None:
            self._path = homes.make()
        return self._path

    @property
    def runtime(self) -> Boxlite:
        if self._runtime is None:
            self._runtime = runtime(self.path, self._images)
        return self._runtime

    def close(self) -> None:
        """Let go of both. Of the home, the evidence stays."""
        self._runtime = None
        if self._path is not None:
            homes.keep_evidence(self._path)
            self._path = None


@pytest.fixture(scope="session")
def shared_home(images: str | None) -> Iterator[SharedHome]:
    shared = SharedHome(images)
    yield shared
    shared.close()


@pytest.fixture
def home(
    shared_home: SharedHome, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Path]:
    """The home of the test before, or a new one if that test failed. The test's result has its name.

    boxlite keeps the disks that it makes of an image in its home, so only a user's first box waits for them.
    What a failed test leaves there reaches no other test.
    """
    failed_before = request.session.testsfailed
    record_property("home", shared_home.path.name)
    yield shared_home.path
    if request.session.testsfailed > failed_before:
        shared_home.close()
