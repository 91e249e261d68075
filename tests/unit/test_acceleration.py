import json
import os
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from lab.base.paths import Paths
from lab.catalog import Firmware
from lab.images import disk
from lab.machine import acceleration, throwaway
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.machine.throwaway import Booted
from tests.builders.guests import base_image


class Daemon:
    """As much of a connection to libvirt as deciding needs; no kernel runs in its machines."""

    def __init__(self, qemu: int = 10_000_000, uri: str = "qemu:///system") -> None:
        self.qemu, self.uri = qemu, uri
        self.started: list[str] = []
        self.is_alive = self.runs_emulated = True

    def getVersion(self) -> int:  # noqa: N802
        return self.qemu

    def getURI(self) -> str:  # noqa: N802
        return self.uri

    def isAlive(self) -> bool:  # noqa: N802
        return self.is_alive

    def createXML(self, xml: str, _flags: int) -> "Ended":  # noqa: N802
        self.started.append(xml)
        if self.runs_emulated and 'type="kvm"' not in xml:
            return Ended()
        raise libvirt.libvirtError("failed to set MSR 0x10a")


class Ended:
    """A machine whose kernel died."""

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_SHUTOFF, 0

    def destroy(self) -> None:
        pass


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev/kvm; it is not there at first."""
    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path / "kvm")
    return tmp_path / "kvm"


# What the next boots of a kernel come to, by whether they are under KVM.
Boots = dict[bool, list[Booted]]


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> Boots:
    found: Boots = {True: [], False: []}

    def boot(_daemon: object, _paths: object, _image: object, *, kvm: bool) -> Booted:
        return found[kvm].pop(0)

    monkeypatch.setattr(throwaway, "boot_kernel", boot)
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    return found


def decide(paths: Paths, daemon: Daemon) -> Acceleration:
    return acceleration.decide(daemon, paths, base_image(paths.images), lambda text: None)


def test_without_a_device_guests_are_emulated(paths: Paths, device: Path) -> None:
    verdict = decide(paths, Daemon())
    assert verdict == Acceleration(False, "/dev/kvm does not exist")
    assert (verdict.name, verdict.speed.factor) == ("emulation", 10.0)


def test_a_broken_kvm_proves_nothing(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    verdict = decide(paths, Daemon())
    assert not verdict.kvm
    assert verdict.reason == "/dev/kvm opens, but under it QEMU fails: failed to set MSR 0x10a"
    assert list(paths.state.iterdir()) == []


@pytest.mark.parametrize("unmeasured", [False, True])
def test_where_no_machine_starts_nothing_is_known_of_kvm(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch, unmeasured: bool
) -> None:
    """As where SELinux denies virtlogd the folder of the consoles: KVM is not to blame, and may work."""
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    daemon = Daemon()
    daemon.runs_emulated = False
    with pytest.raises(
        acceleration.NoMachine, match="libvirt starts no machine, emulated or not: QEMU fails: "
    ):
        acceleration.decide(daemon, paths, base_image(paths.images), lambda text: None, unmeasured=unmeasured)
    assert acceleration.cached(Daemon(), paths) is None
    assert list(paths.state.iterdir()) == []


def test_a_lost_daemon_says_nothing_of_kvm(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    daemon = Daemon()
    daemon.is_alive = False
    with pytest.raises(NoLibvirt, match="libvirt went away while KVM was tried"):
        decide(paths, daemon)
    assert acceleration.cached(Daemon(), paths) is None


def test_a_boot_is_tried_from_an_overlay(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    overlays: list[tuple[Path, Path]] = []
    monkeypatch.setattr(disk, "create_overlay", lambda made, backing: overlays.append((made, backing)))
    daemon = Daemon()
    image = base_image(paths.images, Firmware.BIOS)
    verdict = acceleration.decide(daemon, paths, image, lambda text: None)
    assert verdict.reason == "/dev/kvm opens, but under it QEMU fails: failed to set MSR 0x10a"
    # Once under KVM, and once to see how fast emulation is.
    assert [backing for _, backing in overlays] == [image.disk, image.disk]
    made, _ = overlays[0]
    machine = ET.fromstring(daemon.started[0])
    assert machine.find("os/kernel") is None
    assert [disk.get("file") for disk in machine.findall("devices/disk/source")] == [str(made)]
    assert list(paths.state.iterdir()) == []


def test_kvm_has_to_nest(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_verdict_is_for_one_host_kernel(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(paths, Daemon())
    monkeypatch.setattr(platform, "release", lambda: "7.3.0-new")
    assert acceleration.cached(Daemon(), paths) is None


def test_a_verdict_ends_when_a_device_appears(paths: Paths, device: Path) -> None:
    decide(paths, Daemon())
    device.touch()
    assert acceleration.cached(Daemon(), paths) is None


def test_a_verdict_ends_when_the_user_may_open_the_device(
    paths: Paths, device: Path, boots: Boots, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    boots[False], boots[True] = [Booted(5.0)], [Booted(0.5)]
    assert "join the group kvm" in decide(paths, Daemon()).reason
    # The user joined the group: the device itself is as it was.
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert acceleration.cached(Daemon(), paths) is None
    assert decide(paths, Daemon()).kvm


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"key": 1}'])
def test_a_memory_that_cannot_be_read_is_none(paths: Paths, device: Path, text: str) -> None:
    paths.make(paths.cache)
    paths.acceleration.write_text(text)
    assert acceleration.cached(Daemon(), paths) is None


def test_under_kvm_limits_are_as_they_are_written() -> None:
    assert (Acceleration(True, "").name, Acceleration(True, "").speed.factor) == ("kvm", 1.0)


def ago(paths: Paths, **since: float) -> None:
    """Have the speed measured so long ago."""
    known = json.loads(paths.acceleration.read_text())
    known["measured"] = (datetime.now(UTC) - timedelta(**since)).isoformat()
    paths.acceleration.write_text(json.dumps(known))


def test_kvm_as_slow_as_emulation_gets_limits_as_long(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    boots[True] = [Booted(6.0)]
    how = decide(paths, Daemon())
    assert (how.name, how.speed.factor, how.speed.is_slow) == ("kvm", 12.0, True)
    assert how.told() == (
        "this host boots a kernel 12 times slower than ordinary hardware with KVM, in 6.0 s; "
        "limits of time are 12 times those for KVM"
    )
    # A later lane boots no kernel to know it.
    assert decide(paths, Daemon()) == how


def test_if_kvm_fails_the_speed_of_emulation_is_measured(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    boots[True], boots[False] = [Booted(failure="a guest kernel dies")], [Booted(30.0)]
    how = decide(paths, Daemon())
    assert how == Acceleration(False, "/dev/kvm opens, but under it a guest kernel dies", 30.0)
    assert how.speed.factor == 60.0


def test_unmeasured_emulation_has_the_usual_limits(paths: Paths, device: Path, boots: Boots) -> None:
    boots[False] = [Booted(failure="QEMU fails: no memory")]
    how = decide(paths, Daemon())
    assert (how.kernel_seconds, how.speed.factor) == (None, 10.0)
    # No lane tries it once more for nothing.
    assert decide(paths, Daemon()) == how


class Slow(Daemon):
    """Its machines run, and their kernels never start user space."""

    def createXML(self, xml: str, _flags: int) -> "Slow":  # type: ignore[override]  # noqa: N802
        self.started.append(xml)
        return self

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_RUNNING, 0

    def destroy(self) -> None:
        pass


def test_a_very_slow_host_has_long_limits(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throwaway, "LIMIT_SECONDS", 0.0)
    booted = throwaway.boot_kernel(Slow(), paths, base_image(paths.images), kvm=False)
    assert (booted.seconds, booted.failure) == (0.0, "a guest kernel did not start within 0 s")
    monkeypatch.setattr(throwaway, "boot_kernel", lambda *_words, kvm: Booted(120.0, "it did not start"))
    assert decide(paths, Daemon()).speed.factor == 240.0


def test_a_measurement_of_yesterday_is_made_again(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    boots[True] = [Booted(20.0), Booted(0.6)]
    assert decide(paths, Daemon()).speed.factor == 40.0
    ago(paths, hours=23)
    assert decide(paths, Daemon()).speed.factor == 40.0
    ago(paths, hours=25)
    assert decide(paths, Daemon()).speed.factor == 1.2
    assert boots[True] == []


def test_a_measurement_from_the_future_is_made_again(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    boots[True] = [Booted(0.5), Booted(1.0)]
    decide(paths, Daemon())
    ago(paths, days=-300)
    assert decide(paths, Daemon()).speed.factor == 2.0


def test_emulation_is_measured_again_without_trying_kvm_again(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    boots[True] = [Booted(failure="a guest kernel dies")]
    boots[False] = [Booted(5.0), Booted(15.0)]
    first = decide(paths, Daemon())
    ago(paths, days=2)
    again = decide(paths, Daemon())
    assert (again.reason, again.speed.factor) == (first.reason, 30.0)


def test_after_a_failed_boot_the_speed_is_measured_again(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    acceleration.measure_again(paths)
    boots[True] = [Booted(0.5), Booted(8.0)]
    decide(paths, Daemon())
    acceleration.measure_again(paths)
    assert decide(paths, Daemon()).speed.factor == 16.0


def test_a_slow_boot_makes_later_limits_longer_and_a_fast_one_none_shorter() -> None:
    known = Acceleration(True, "", 2.0)
    assert known.learned("[   10.250000] Run /init as init process").speed.factor == 20.5
    assert known.learned("[    0.250000] Run /init as init process") is known
    assert known.learned("a kernel that is quiet") is known
    # Ten times KVM is what emulation gets at least.
    assert Acceleration(False, "").learned("[ 4.0] Run /init as init process") == Acceleration(False, "", 4.0)


def test_a_guest_s_boot_measures_emulation(paths: Paths, device: Path, boots: Boots) -> None:
    device.touch()
    image = base_image(paths.images)
    boots[True] = [Booted(failure="a guest kernel dies")]
    how = acceleration.decide(Daemon(), paths, image, lambda text: None, unmeasured=True)
    assert how == Acceleration(False, "/dev/kvm opens, but under it a guest kernel dies")
    # Its other lanes do not boot a kernel for it either.
    assert acceleration.decide(Daemon(), paths, image, lambda text: None, unmeasured=True) == how
    booted = how.learned("[    4.0] Run /init as init process")
    assert acceleration.keep_speed(Daemon(), paths, booted)
    assert decide(paths, Daemon()) == booted
    # What was kept first stays until it is old.
    assert not acceleration.keep_speed(Daemon(), paths, Acceleration(False, how.reason, 9.0))
    assert not acceleration.keep_speed(Daemon(), paths, how)
    assert decide(paths, Daemon()) == booted


def test_a_speed_that_no_boot_has_shown_is_measured(paths: Paths, device: Path, boots: Boots) -> None:
    image = base_image(paths.images)
    acceleration.decide(Daemon(), paths, image, lambda text: None, unmeasured=True)
    boots[False] = [Booted(6.0)]
    assert decide(paths, Daemon()) == Acceleration(False, "/dev/kvm does not exist", 6.0)


def test_after_a_failed_boot_emulation_is_measured_first(paths: Paths, device: Path, boots: Boots) -> None:
    image = base_image(paths.images)
    acceleration.decide(Daemon(), paths, image, lambda text: None, unmeasured=True)
    acceleration.measure_again(paths)
    boots[False] = [Booted(50.0)]
    how = acceleration.decide(Daemon(), paths, image, lambda text: None, unmeasured=True)
    assert how.speed.factor == 100.0


@pytest.mark.parametrize(
    ("console", "seconds"),
    [
        ("[    5.191034] Run /init as init process\n[    5.2] other\n", 5.191034),
        ("[  129.023425] Run /init as init process", 129.023425),
        # A guest that restarted itself at its first boot.
        ("[    9.5] Run /init as init process\n[    7.25] Run /init as init process\n", 7.25),
        ("Run /init as init process", None),
        ("[    5.19] Run /sbin/init as init process", None),
        ("", None),
    ],
)
def test_the_kernels_own_clock_says_how_long_it_took(console: str, seconds: float | None) -> None:
    assert throwaway.seconds_of(console) == seconds
