"""A guest from a disk as distributions publish them: prepared over the network once, then run without one."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lab import prepare, process
from lab.catalog import Catalog, Firmware, Guest
from lab.guest import ready
from lab.guest.session import Session
from lab.images import store
from lab.images.store import BaseImage, Manifest
from lab.machine import acceleration, lane
from lab.machine.acceleration import KERNEL_RAN, Acceleration
from lab.machine.checkpoint import MemoryCheckpoint
from lab.machine.connection import connection, default_uri
from lab.paths import Paths
from lab.prepare import Preparation
from lab.results import Status
from tests.vm import cloud_disk
from tests.vm.cloud_disk import CloudDisk
from tests.vm.conftest import RunCells

# Blocked at once, so that its cell takes the least time.
VARIANT = "userns-clone-off"


@pytest.fixture(scope="module")
def own(home: Path) -> Iterator[Paths]:
    """A store of these tests' own: what is prepared here is of no use to anybody else."""
    yield Paths(cache=home / "cloud" / "cache", state=home / "state")
    shutil.rmtree(home / "cloud")


@pytest.fixture(scope="module")
def disk() -> CloudDisk:
    return cloud_disk.ensure(Paths.default())


@pytest.fixture(scope="module")
def guest(known: Catalog) -> Guest:
    return known.guest("debian-13").model_copy(update={"name": "cloud"})


@pytest.fixture(scope="module")
def how(own: Paths, disk: CloudDisk) -> Acceleration:
    """Found out with the only image there is: one that boots itself."""
    image = BaseImage(disk.folder, Manifest("cloud", "", "", "", 0.0), Firmware.BIOS)
    with connection(default_uri()) as opened:
        return acceleration.decide(opened, own, image)


@dataclass(frozen=True)
class Prepared:
    """An image, the one that was made of it, and the files that the guest fetched for that."""

    base: BaseImage
    made: BaseImage
    fetched: list[str]


@pytest.fixture(scope="module")
def prepared(own: Paths, disk: CloudDisk, guest: Guest, how: Acceleration) -> Prepared:
    """Prepared from a repository that is gone from here on."""
    with cloud_disk.served(disk.repository) as repository, connection(default_uri()) as opened:
        base = disk.image(own.make(own.images) / "cloud", Firmware.BIOS, sources=repository.url)
        made = prepare.ensure(Preparation(opened, own, default_uri(), how, lambda text: None), guest, base)
        return Prepared(base, made, list(repository.asked))


def test_preparing_installs_what_is_missing_and_leaves_no_identity(prepared: Prepared, tmp_path: Path) -> None:
    assert [name for name in prepared.fetched if name.endswith(".deb")] != []
    raw = tmp_path / "disk.raw"
    process.run(["qemu-img", "convert", "-O", "raw", prepared.made.disk, raw], timeout=120)
    assert "Size: 0" in cloud_disk.on_root(raw, "stat /etc/machine-id")
    assert "Type: regular" in cloud_disk.on_root(raw, "stat /usr/bin/bwrap")
    for path in ("/etc/ssh/ssh_host_ed25519_key", "/home/lab/.ssh", "/var/lib/cloud/instance"):
        assert "File not found" in cloud_disk.on_root(raw, f"stat {path}")
    raw.unlink()


def test_uefi_boots_the_disk_to_ssh_and_its_lane_forks_from_a_checkpoint_of_memory(
    own: Paths, guest: Guest, how: Acceleration, prepared: Prepared
) -> None:
    image = replace(prepared.made, firmware=Firmware.UEFI)
    with (
        connection(default_uri()) as opened,
        lane.opened(opened, own, guest=guest, image=image, acceleration=how) as made,
    ):
        session = Session(made.endpoint, alive=made.check_alive, factor=how.factor)
        made.start()
        ready.wait_up(session, made, factor=how.factor)
        # By this line the probe for KVM knows that a kernel ran.
        assert KERNEL_RAN in made.console_text()
        seen = session.run("ls -d /sys/firmware/efi; bwrap --version; df --output=size -BG /", seconds=10)
        assert seen.stdout.startswith("/sys/firmware/efi\nbubblewrap ")
        # The disk that was built has 3 GiB.
        assert int(seen.stdout.split()[-1].rstrip("G")) >= guest.image.disk_gib - 1
        session.close()
        checkpoint = MemoryCheckpoint.take(made, "test")
        for _ in range(2):
            checkpoint.fork()
            session.wait_open(60)
            assert session.run("ls /tmp; touch /tmp/left-by-a-fork", seconds=10).stdout.count("left") == 0
            session.close()


def test_a_prepared_guest_needs_no_network_for_its_cells(
    own: Paths,
    guest: Guest,
    prepared: Prepared,
    run_cells: RunCells,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "ensure", lambda paths, guest, say: prepared.base)
    run = run_cells([guest], [VARIANT, "max-userns-zero"], at=own)
    assert [(cell.status, cell.cause) for cell in run.cells] == [
        (Status.XFAIL, "userns-sysctl"),
        (Status.XFAIL, "userns-limit"),
    ], [cell.reason for cell in run.cells]
    [served] = run.run.lanes
    assert (served.way, served.note, served.image) == ("memory", "", prepared.made.manifest.disk_sha256)


def test_a_guest_that_cannot_be_prepared_says_what_it_lacks_in_each_of_its_cells(
    own: Paths,
    guest: Guest,
    disk: CloudDisk,
    how: Acceleration,
    run_cells: RunCells,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cloud_disk.served(disk.repository) as gone:
        image = disk.image(own.make(own.images) / "no-network", Firmware.BIOS, sources=gone.url)
    monkeypatch.setattr(store, "ensure", lambda paths, guest, say: image)
    run = run_cells([guest], [VARIANT, "stock"], at=own)
    for cell in run.cells:
        assert cell.status is Status.ERROR
        first = cell.reason.splitlines()[0]
        assert first.startswith("cloud could not be prepared: cloud lacks bubblewrap, which could not be ")
        # apt's own words, and the next step.
        assert gone.url.rstrip("/") in cell.reason
        assert "  next: the guest needs its own package sources once" in cell.reason
        assert [Path(name).name for name in cell.evidence] == ["console.log"]
    assert run.run.lanes == []
    assert prepare.find(own, guest, image) is None
    assert list(own.prepared.glob(".partial-*")) == []
