from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from lab import catalog
from lab.base import process
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images.store import BaseImage
from lab.machine import ports
from lab.machine.connection import connection
from tests.unit.examples import base_image

# libvirt's test driver: a daemon inside this process, whose machines run nothing. All open connections see the
# same machines, which disappear when the last connection is closed.
URI = "test:///default"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[libvirt.virConnect]:
    """A connection to the test driver. It accepts the lab's XML but does not support autodestroy."""
    monkeypatch.setattr(libvirt, "VIR_DOMAIN_START_AUTODESTROY", 0)
    with connection(URI) as connected:
        yield connected


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


@pytest.fixture(autouse=True)
def own_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that no lab uses, so that these tests do not disturb a running lab."""
    monkeypatch.setattr(ports, "FIRST", 23200)
    monkeypatch.setattr(ports, "LAST", 23249)


@pytest.fixture
def guest() -> Guest:
    return catalog.load().guest("debian-13")


@pytest.fixture
def image(tmp_path: Path) -> BaseImage:
    """An image with a real but empty disk."""
    made = base_image(tmp_path / "image")
    made.folder.mkdir()
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", made.disk, "1M"], timeout=60)
    return made
