"""Guests from disks as distributions publish them: pulled, prepared over a network once, then run without one.

The disk is made here of Debian's packages, and published on the loopback interface in Ubuntu's layout. A cell
of it says nothing of Ubuntu.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.base import process
from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.catalog import Firmware, Guest
from lab.guest import ready
from lab.guest.session import Session
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.machine import acceleration
from lab.machine.checkpoint import Checkpoint
from lab.machine.connection import get_default_uri, hold_connection
from lab.machine.console import KERNEL_RAN
from lab.machine.lane import open_lane
from lab.record import RunResult, Status
from tests.builders.mirror import guest
from tests.vm import cloud_disk
from tests.vm.conftest import RELEASE, invoke, own_home

# The last one is not published.
UBUNTU, LACKING, ABSENT = "ubuntu-24.04", "ubuntu-22.04", "ubuntu-26.04"


@pytest.fixture(scope="module")
def own(home: Path, paths: Paths) -> Iterator[Paths]:
    """A store of these tests' own: what is pulled here is of no use to anybody else."""
    with own_home(home / "cloud", paths) as made:
        yield made


@pytest.fixture(scope="module")
def built(paths: Paths) -> cloud_disk.CloudDisk:
    """The disk, from the user's own cache."""
    return cloud_disk.ensure(paths)


@pytest.fixture(scope="module")
def repository(built: cloud_disk.CloudDisk) -> Iterator[cloud_disk.Repository]:
    """The packages that a guest lacks; gone where a test says so."""
    with cloud_disk.served(built.repository) as served:
        yield served


@pytest.fixture(scope="module")
def published(
    built: cloud_disk.CloudDisk,
    repository: cloud_disk.Repository,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """The disk in a distribution's layout."""
    with cloud_disk.published(built, repository.url, tmp_path_factory.mktemp("mirror"), UBUNTU, LACKING):
        yield


@pytest.fixture(scope="module")
def pulled(published: None, own: Paths) -> BaseImage:
    """By the command line."""
    assert invoke("images", "pull", UBUNTU, LACKING)[0] == 0
    image = store.find_image(own, guest(UBUNTU))
    assert image is not None
    return image


@pytest.fixture(scope="module")
def first(pulled: BaseImage, own: Paths, repository: cloud_disk.Repository) -> tuple[int, RunResult]:
    """A run in which the guest is prepared, beside one that cannot be had; the repository is gone after it."""
    words = ["-g", UBUNTU, "-g", ABSENT, "-v", "userns-clone-off", "--build", RELEASE]
    status, _ = invoke("matrix", "--no-remedies", *words, "-o", own.state / "first")
    repository.close()
    return status, RunResult.read(own.state / "first")


def test_a_pulled_guest_runs_from_its_own_loader_and_one_that_cannot_be_had_is_not_run(
    first: tuple[int, RunResult],
) -> None:
    status, run = first
    here, absent = run.cells
    assert (here.guest, absent.guest) == (UBUNTU, ABSENT)
    assert (here.status, here.cause, here.verdict.confidence) == (Status.XFAIL, "userns-sysctl", "proved"), (
        here.reason
    )
    # Whatever the row is called: what the guest is, it says itself.
    assert here.facts is not None
    assert here.facts.os.id == "debian"
    # The login of a prepared image is a session of PAM.
    assert here.suite.context is not None
    assert (here.suite.context.session.kind, here.suite.context.session.manager) == ("login", True)
    assert absent.status is Status.NOT_RUN
    assert absent.reason.startswith("image not available: SHA256SUMS of 127.0.0.1")
    assert "HTTP 404" in absent.reason
    assert status == run.exit_status() == 3


def test_preparing_installs_what_is_missing_and_leaves_no_identity(
    first: tuple[int, RunResult],
    repository: cloud_disk.Repository,
    pulled: BaseImage,
    own: Paths,
    tmp_path: Path,
) -> None:
    assert [name for name in repository.requests if name.endswith(".deb")] != []
    made = prepare_image.find_prepared_image(own, guest(UBUNTU), pulled)
    assert made is not None
    assert first[1].run.lanes[0].image == made.manifest.disk_sha256
    raw = tmp_path / "disk.raw"
    process.run_command(["qemu-img", "convert", "-O", "raw", made.disk, raw], timeout=120)
    assert "Size: 0" in cloud_disk.on_root(raw, "stat /etc/machine-id")
    assert "Type: regular" in cloud_disk.on_root(raw, "stat /usr/bin/bwrap")
    for path in ("/etc/ssh/ssh_host_ed25519_key", "/home/lab/.ssh", "/var/lib/cloud/instance"):
        assert "File not found" in cloud_disk.on_root(raw, f"stat {path}")
    raw.unlink()


@pytest.mark.slow
def test_a_prepared_guest_needs_no_network(first: tuple[int, RunResult], own: Paths) -> None:
    again = own.state / "again"
    words = ["-g", UBUNTU, "-v", "max-userns-zero", "--build", RELEASE]
    assert invoke("matrix", "--no-remedies", *words, "-o", again)[0] == 0
    run = RunResult.read(again)
    [cell] = run.cells
    assert (cell.status, cell.cause) == (Status.XFAIL, "userns-limit")
    [served] = run.run.lanes
    assert (served.fork, served.note, served.stored_build) == ("memory", "", True)


@pytest.mark.slow
def test_uefi_boots_the_disk_to_ssh_and_its_lane_forks_from_a_checkpoint_of_memory(
    first: tuple[int, RunResult], pulled: BaseImage, own: Paths
) -> None:
    prepared = prepare_image.find_prepared_image(own, guest(UBUNTU), pulled)
    assert prepared is not None
    image = replace(prepared, firmware=Firmware.UEFI)
    chosen: Guest = guest(UBUNTU)
    with hold_connection(get_default_uri()) as opened:
        how = acceleration.decide_acceleration(opened, own, image, UNWATCHED)
        with open_lane(opened, own, guest=chosen, image=image, acceleration=how) as made:
            session = Session(made.endpoint, alive=made.check_alive, speed=how.speed)
            made.start()
            ready.wait_for_boot(session, made)
            # By this line the probe for KVM knows that a kernel ran.
            assert KERNEL_RAN in made.console_text()
            seen = session.run("ls -d /sys/firmware/efi; bwrap --version; df --output=size -BG /", seconds=10)
            assert seen.stdout.startswith("/sys/firmware/efi\nbubblewrap ")
            # The disk that was built has 3 GiB.
            assert int(seen.stdout.split()[-1].rstrip("G")) >= chosen.image.disk_gib - 1
            session.close()
            checkpoint = Checkpoint.take(made, "test")
            for _ in range(2):
                checkpoint.fork()
                session.wait_open(60)
                assert session.run("ls /tmp; touch /tmp/left-by-a-fork", seconds=10).stdout.count("left") == 0
                session.close()


@pytest.mark.slow
def test_a_guest_that_cannot_be_prepared_says_what_it_lacks_in_each_of_its_cells(
    first: tuple[int, RunResult], repository: cloud_disk.Repository, own: Paths
) -> None:
    failed = own.state / "failed"
    words = ["-g", LACKING, "-v", "userns-clone-off", "-v", "stock", "--build", RELEASE]
    assert invoke("matrix", "--no-remedies", *words, "-o", failed)[0] == 3
    run = RunResult.read(failed)
    assert len(run.cells) == 2
    for cell in run.cells:
        assert cell.status is Status.ERROR
        begin = f"{LACKING} could not be prepared: {LACKING} lacks bubblewrap, which could not be "
        assert cell.reason.splitlines()[0].startswith(begin)
        # apt's own words, and the next step.
        assert repository.url.rstrip("/") in cell.reason
        assert "  next: the guest needs its own package sources once" in cell.reason
        assert [Path(name).name for name in cell.evidence] == ["console.log"]
    assert run.run.lanes == []
    assert not list(own.images.glob(f"prepared-{LACKING}-*[0-9a-f]"))
    assert list(own.images.glob(".partial-*")) == []
