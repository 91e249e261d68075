import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from lab import catalog
from lab.base import process
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images.store import BaseImage
from lab.machine import acceleration, leftovers
from lab.machine.connection import hold_connection
from tests.builders.guests import base_image
from tests.builders.lab import URI, Lab


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[libvirt.virConnect]:
    """A connection to the test driver. It accepts the lab's XML but does not support autodestroy."""
    monkeypatch.setattr(libvirt, "VIR_DOMAIN_START_AUTODESTROY", 0)
    with hold_connection(URI) as connected:
        yield connected


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


@pytest.fixture(autouse=True)
def own_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that no lab uses, so that these tests do not disturb a running lab."""
    monkeypatch.setattr(leftovers, "FIRST_PORT", 23200)
    monkeypatch.setattr(leftovers, "LAST_PORT", 23249)


@pytest.fixture(autouse=True)
def idle_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A boot counts for what it took, whatever else this host has to do."""
    monkeypatch.setattr(acceleration, "measure_load", lambda: 1.0)


@pytest.fixture
def guest() -> Guest:
    return catalog.load_catalog().guest("debian-13")


@pytest.fixture
def image(tmp_path: Path) -> BaseImage:
    """An image with a real but empty disk."""
    made = base_image(tmp_path / "image")
    made.folder.mkdir()
    process.run_command(["qemu-img", "create", "-q", "-f", "qcow2", made.disk, "1M"], timeout=60)
    return made


@pytest.fixture
def lab(
    opened: libvirt.virConnect, paths: Paths, image: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    made = Lab(opened, paths)
    made.put_stand_ins(image, monkeypatch)
    yield made
    assert made.left == []


@pytest.fixture
def interrupt() -> Callable[[], None]:
    """Ctrl-C, from whatever thread."""
    main = threading.main_thread().ident
    assert main is not None
    return lambda: signal.pthread_kill(main, signal.SIGINT)
