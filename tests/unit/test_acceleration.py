import platform
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from lab.base.paths import Paths
from lab.catalog import Firmware
from lab.machine import acceleration, overlay
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from tests.unit.examples import base_image


class Daemon:
    """As much of a connection to libvirt as deciding needs; it never gets to run a machine."""

    def __init__(self, qemu: int = 10_000_000, uri: str = "qemu:///system") -> None:
        self.qemu, self.uri = qemu, uri
        self.started: list[str] = []
        self.is_alive = True

    def getVersion(self) -> int:  # noqa: N802
        return self.qemu

    def getURI(self) -> str:  # noqa: N802
        return self.uri

    def isAlive(self) -> bool:  # noqa: N802
        return self.is_alive

    def createXML(self, xml: str, _flags: int) -> None:  # noqa: N802
        self.started.append(xml)
        raise libvirt.libvirtError("failed to set MSR 0x10a")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev/kvm; it is not there at first."""
    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path / "kvm")
    return tmp_path / "kvm"


def decide(paths: Paths, daemon: Daemon) -> Acceleration:
    return acceleration.decide(daemon, paths, base_image(paths.images), lambda text: None)


def test_without_a_device_guests_are_emulated(paths: Paths, device: Path) -> None:
    verdict = decide(paths, Daemon())
    assert verdict == Acceleration(False, "/dev/kvm does not exist")
    assert (verdict.name, verdict.factor) == ("emulation", 10.0)


def test_a_device_under_which_qemu_fails_proves_nothing(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    verdict = decide(paths, Daemon())
    assert not verdict.kvm
    assert verdict.reason == "/dev/kvm opens, but QEMU fails under it: failed to set MSR 0x10a"
    assert list(paths.state.iterdir()) == []


def test_a_daemon_that_goes_away_meanwhile_says_nothing_of_kvm(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    daemon = Daemon()
    daemon.is_alive = False
    with pytest.raises(NoLibvirt, match="libvirt went away while KVM was tried"):
        decide(paths, daemon)
    assert acceleration.cached(Daemon(), paths) is None


def test_an_image_that_boots_itself_is_tried_from_an_overlay_of_its_disk(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    overlays: list[tuple[Path, Path]] = []
    monkeypatch.setattr(overlay, "create", lambda made, backing: overlays.append((made, backing)))
    daemon = Daemon()
    image = base_image(paths.images, Firmware.BIOS)
    verdict = acceleration.decide(daemon, paths, image, lambda text: None)
    assert verdict.reason == "/dev/kvm opens, but QEMU fails under it: failed to set MSR 0x10a"
    [(made, backing)] = overlays
    assert backing == image.disk
    machine = ET.fromstring(daemon.started[0])
    assert machine.find("os/kernel") is None
    assert [disk.get("file") for disk in machine.findall("devices/disk/source")] == [str(made)]
    assert list(paths.state.iterdir()) == []


def test_a_device_that_cannot_nest_is_no_use(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: False)
    assert "nested" in decide(paths, Daemon()).reason


def test_a_verdict_is_remembered(paths: Paths, device: Path) -> None:
    verdict = decide(paths, Daemon())
    assert acceleration.cached(Daemon(), paths) == verdict
    text = paths.acceleration.read_text()
    paths.acceleration.write_text(text.replace("does not exist", "is remembered"))
    assert decide(paths, Daemon()).reason == "/dev/kvm is remembered"


@pytest.mark.parametrize("daemon", [Daemon(qemu=10_001_000), Daemon(uri="qemu:///session")])
def test_a_verdict_is_not_taken_for_that_of_another_qemu(paths: Paths, device: Path, daemon: Daemon) -> None:
    decide(paths, Daemon())
    assert acceleration.cached(daemon, paths) is None


def test_a_verdict_is_not_taken_for_that_of_another_host_kernel(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(paths, Daemon())
    monkeypatch.setattr(platform, "release", lambda: "7.3.0-new")
    assert acceleration.cached(Daemon(), paths) is None


def test_a_verdict_ends_when_a_device_appears(paths: Paths, device: Path) -> None:
    decide(paths, Daemon())
    device.touch()
    assert acceleration.cached(Daemon(), paths) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"key": 1}'])
def test_a_memory_that_cannot_be_read_is_none(paths: Paths, device: Path, text: str) -> None:
    paths.make(paths.cache)
    paths.acceleration.write_text(text)
    assert acceleration.cached(Daemon(), paths) is None


def test_under_kvm_limits_are_as_they_are_written() -> None:
    assert (Acceleration(True, "").name, Acceleration(True, "").factor) == ("kvm", 1.0)
