"""The clock of emulated guests: a slower one where QEMU loads what makes it, and otherwise why it does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import libvirt
import pytest

from lab.base.paths import Paths
from lab.machine import acceleration, clock, leftovers, qemu
from lab.machine.acceleration import Acceleration
from lab.machine.clock import RATE, Clock
from tests.builders.daemon import Daemon
from tests.builders.guests import base_image

# Where this host has the library; the other tests have none.
FOLDERS, INSTALLED = clock.FOLDERS, clock.library()
MAPPED = "7f0c5f000000-7f0c5f010000 r-xp 00000000 08:01 1234 {}\n"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_known", {})


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / clock.FILE
    file.touch()
    monkeypatch.setattr(clock, "FOLDERS", (tmp_path / "none", tmp_path))
    return file


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the QEMU of the machine has mapped."""
    file = tmp_path / "maps"
    monkeypatch.setattr(qemu, "processes_of", lambda name: [SimpleNamespace(pid=77)])
    monkeypatch.setattr(clock, "MAPS", str(file))
    yield file


def test_without_the_library_guests_have_the_host_s_clock_and_nothing_is_started(paths: Paths) -> None:
    daemon = Daemon()
    emulated = clock.of_emulated(daemon, paths)
    assert (emulated.rate, emulated.environment, daemon.machines) == (1.0, {}, [])
    assert emulated.reason.startswith("libfaketime is not installed")


def test_guests_have_a_slower_clock(paths: Paths, library: Path, maps: Path) -> None:
    maps.write_text(MAPPED.format("/usr/lib/libc.so.6") + MAPPED.format(library))
    daemon = Daemon()
    emulated = clock.of_emulated(daemon, paths)
    assert (emulated.rate, emulated.reason) == (RATE, "")
    assert emulated.environment["LD_PRELOAD"] == str(library)
    assert emulated.environment["FAKETIME"] == "+0 x0.1"
    [machine] = daemon.machines
    assert machine.environment == emulated.environment
    # It stands still, ends with the connection, and is gone.
    assert machine.flags == libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
    assert not machine.is_there
    assert leftovers.lanes(paths) == []
    assert clock.of_emulated(daemon, paths) == emulated
    assert daemon.machines == [machine]


@pytest.mark.skipif(INSTALLED is None, reason="libfaketime is not installed")
def test_a_killed_program_leaves_no_memory(paths: Paths, maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "FOLDERS", FOLDERS)
    maps.write_text(MAPPED.format(INSTALLED))
    emulated = clock.of_emulated(Daemon(), paths)
    assert emulated.rate == RATE
    told = "import time; print(time.monotonic(), flush=True); time.sleep(60)"
    ran = subprocess.Popen(
        [sys.executable, "-c", told], env={**os.environ, **emulated.environment}, stdout=subprocess.PIPE
    )
    assert ran.stdout and ran.stdout.readline()
    ran.kill()
    ran.communicate()
    assert list(Path("/dev/shm").glob(f"*faketime*_{ran.pid}")) == []


@pytest.mark.parametrize("text", ["", MAPPED.format("/usr/lib/libc.so.6"), None])
def test_a_confined_qemu_has_the_host_clock(paths: Paths, library: Path, maps: Path, text: str | None) -> None:
    if text is not None:
        maps.write_text(text)
    emulated = clock.of_emulated(Daemon(), paths)
    assert (emulated.rate, emulated.environment) == (1.0, {})
    assert emulated.reason == f"libvirt starts QEMU without {library}: something on this host confines it"


def test_a_failed_start_says_nothing_of_the_clock(paths: Paths, library: Path, maps: Path) -> None:
    with pytest.raises(libvirt.libvirtError):
        clock.of_emulated(Daemon(refuses={"qemu": "no room"}), paths)
    maps.write_text(MAPPED.format(library))
    assert clock.of_emulated(Daemon(), paths).rate == RATE


@pytest.mark.parametrize("kvm", [False, True])
def test_only_emulated_guests_have_a_slower_clock(
    paths: Paths, library: Path, maps: Path, monkeypatch: pytest.MonkeyPatch, kvm: bool
) -> None:
    maps.write_text(MAPPED.format(library))
    device = paths.cache.parent / "kvm"
    monkeypatch.setattr(acceleration, "KVM_DEVICE", device)
    monkeypatch.setattr(acceleration, "_nested", lambda: True)
    monkeypatch.setattr(acceleration, "boot_under_kvm", lambda *_: 0.5)
    if kvm:
        device.touch()
    how = acceleration.decide(Daemon(), paths, base_image(paths.images), lambda text: None)
    assert (how.kvm, how.speed.clock) == (kvm, 1.0 if kvm else RATE)


def test_a_boot_by_a_slower_clock_counts_in_real_seconds() -> None:
    emulated = Acceleration(False, "a test", clock=Clock(0.1))
    learned = emulated.learned("[    0.481000] Run /init as init process")
    assert learned.kernel_seconds == 4.81
    assert learned.speed.times_slower == pytest.approx(9.62)
