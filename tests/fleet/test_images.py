"""Images that travel over SFTP: from the coordinator to hosts, and from a host that prepared one."""

from pathlib import Path

import pytest

pytest.importorskip("distributed")

from lab import plan
from lab.base.paths import Paths
from lab.images import store
from lab.lane import prepare_image
from lab.record import Status
from tests.builders.guests import put_image, put_published
from tests.builders.runs import KNOWN, PLAN, RELEASE, VARIANTS
from tests.conftest import Mount
from tests.fleet.examples import Fleet, HostExample, running

pytestmark = pytest.mark.timeout(900)
ONE_GUEST = [cell for cell in PLAN if cell.guest.name == "debian-13"]
CLOUD = plan.choose_cells(KNOWN, guests=["ubuntu-24.04"], variants=VARIANTS).cells([RELEASE])


def stored(host: HostExample) -> list[str]:
    """The digests of the images in a host's store; nothing is half made there."""
    paths = Paths(cache=host.home / "cache", state=host.home / "state")
    assert not list(paths.images.glob(".partial-*"))
    return [image.manifest.digest for image in store.list_images(paths)]


def test_a_host_that_built_an_image_by_itself_gets_the_run_s_once_and_keeps_its_own(fleet: Fleet) -> None:
    guest = ONE_GUEST[0].guest
    one = fleet.add("one")
    its = put_image(Paths(one.home / "cache", one.home / "state"), guest, kib=2048)
    with running(fleet, ONE_GUEST, most_seconds=1.0) as run:
        result = run.finish()
        lanes = [text for lane, text in run.told.lanes if lane == "one: debian-13"]
    run_s = store.find_image(fleet.paths, guest)
    assert run_s
    assert {lane.image for lane in result.run.lanes} == {run_s.manifest.disk_sha256}
    assert sorted(stored(one)) == sorted([run_s.manifest.digest, its.manifest.digest])
    assert lanes.count("image: on its way to this host") == 1


def test_a_distribution_s_image_is_prepared_by_one_host_for_all(fleet: Fleet, tmp_path: Path) -> None:
    guest = CLOUD[0].guest
    base = put_published(fleet.paths, guest)
    inputs = prepare_image.inputs_digest(guest, base)
    prepares = {"inputs": inputs, "base": base.manifest.disk_sha256}
    for name in ("one", "two"):
        fleet.add(name, seconds=2, prepares=prepares)
    with running(fleet, CLOUD, most_seconds=1.0) as run:
        result = run.finish()
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert {cell.history.lane.partition(":")[0] for cell in result.cells} == {"one", "two"}
    (disk,) = {lane.image for lane in result.run.lanes}
    prepared = prepare_image.find_prepared_image(fleet.paths, guest, base)
    assert prepared
    assert prepared.manifest.disk_sha256 == disk != base.manifest.disk_sha256
    assert len([*tmp_path.glob("*/cache/images/prepared-*/")]) == 1


def test_a_host_without_room_for_an_image_says_so_and_another_runs_the_part(fleet: Fleet, mount: Mount) -> None:
    bad = fleet.add("bad")
    mount(bad.home / "cache", "size=2m")
    fleet.add("good", seconds=1)
    with running(fleet, ONE_GUEST, most_seconds=1.0) as run:
        result = run.finish()
        assert run.told.noted("bring the image of debian-13; is the disk full there?")
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert {cell.history.lane.partition(":")[0] for cell in result.cells} == {"good"}


def test_a_full_disk_costs_no_cell(fleet: Fleet, tmp_path: Path, mount: Mount) -> None:
    """The results of one host do not fit its temporary files."""
    disk = mount(tmp_path / "small", "size=100k,nr_inodes=200")
    fleet.add("bad", environment=f"export TMPDIR={disk}", bulk=500_000)
    fleet.add("good", seconds=1)
    with running(fleet, ONE_GUEST, most_seconds=1.0) as run:
        result = run.finish()
        assert run.told.noted("No space left on device")
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert {cell.history.lane.partition(":")[0] for cell in result.cells} == {"good"}
