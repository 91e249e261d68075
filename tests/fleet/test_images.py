"""Images that travel: from the coordinator to hosts, and from a host to the coordinator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from lab import plan
from lab.base.paths import Paths
from lab.fleet import pinning
from lab.images import store, transfer
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.record import Status
from tests.fleet.examples import Fleet, running
from tests.fleet.small_disk import NoMounts, mounted
from tests.unit.image_examples import put_image, put_published
from tests.unit.run_examples import KNOWN, PLAN, RELEASE, SMALL, VARIANTS

pytestmark = pytest.mark.timeout(900)
ONE_GUEST = [cell for cell in PLAN if cell.guest.name == "debian-13"]
GUEST = ONE_GUEST[0].guest


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def stored(paths: Paths) -> dict[str, str]:
    """The digests of the images of a store, by their folders; a folder that is half made shows, too."""
    folders = [each for each in paths.images.iterdir() if each.is_dir()] if paths.images.exists() else []
    images = {folder.name: store.read(folder) for folder in folders}
    return {name: image.content.digest if image else "none" for name, image in images.items()}


def files(image: BaseImage) -> dict[str, bytes]:
    return {name: (image.folder / name).read_bytes() for name in image.manifest.files}


def test_hosts_without_an_image_get_the_coordinator_s(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", most_seconds=1.0) as run:
        for name in ("one", "two"):
            run.start_host(name, seconds=2)
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"one", "two"}
    for name in ("one", "two"):
        for content in transfer.offered(fleet.paths_of(name)):
            its, own = (
                store.by_content(paths, content.digest) for paths in (fleet.paths_of(name), fleet.paths)
            )
            assert its and own
            assert files(its) == files(own)
            store.check(its)
        assert stored(fleet.paths_of(name))
    assert not run.told.noted("is not the same image everywhere")


def test_an_image_that_only_one_host_has_is_everybody_s(fleet: Fleet, tmp_path: Path) -> None:
    image = put_image(fleet.paths_of("one"), GUEST)
    with running(fleet, tmp_path / "run", ONE_GUEST, has_images=False, most_seconds=1.0) as run:
        run.start_host("two", seconds=1)
        run.told.wait(lambda: run.told.noted("two joined"))
        run.start_host("one", seconds=1)
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"one", "two"}
        assert run.told.noted("debian-13: its image comes from one, which has it")
    assert {lane.image for lane in result.run.lanes} == {image.manifest.disk_sha256}
    assert (
        [*stored(fleet.paths_of("two")).values()] == [*stored(fleet.paths).values()] == [image.content.digest]
    )
    own = store.find(fleet.paths, GUEST)
    assert own
    assert own.manifest.source == "built for a test; from host one"


def test_hosts_that_built_an_image_by_themselves_use_the_run_s_and_keep_theirs(
    fleet: Fleet, tmp_path: Path
) -> None:
    run_s, its = put_image(fleet.paths, GUEST), put_image(fleet.paths_of("one"), GUEST, kib=2048)
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        run.start_host("one")
        result = run.finish()
    assert {lane.image for lane in result.run.lanes} == {run_s.manifest.disk_sha256}
    assert sorted(stored(fleet.paths_of("one")).values()) == sorted(
        each.content.digest for each in (run_s, its)
    )
    assert store.find(fleet.paths_of("one"), GUEST) == its


def test_an_image_that_nobody_has_is_made_once_by_the_coordinator(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def ensure(paths: Paths, guest: Any, say: Any, *, offline: bool) -> BaseImage:
        made.append(guest.name)
        return put_image(paths, guest)

    monkeypatch.setattr(store, "ensure", ensure)
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 3.0)
    with running(fleet, tmp_path / "run", SMALL, has_images=False) as run:
        run.start_host("one")
        run.start_host("two")
        result = run.finish()
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert sorted(made) == ["debian-12", "debian-13"]


CLOUD = plan.choose(KNOWN, guests=["ubuntu-24.04"], variants=VARIANTS).cells([RELEASE])


def test_a_distribution_s_image_is_prepared_by_one_host_for_all(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = CLOUD[0].guest
    base = put_published(fleet.paths, guest)
    inputs = prepare_image.inputs_digest(guest, base)
    prepares = {"inputs": inputs, "base": base.manifest.disk_sha256}
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 1.0)
    with running(fleet, tmp_path / "run", CLOUD, most_seconds=1.0, has_images=False) as run:
        for name in ("one", "two", "three"):
            run.start_host(name, seconds=2, prepares=prepares)
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert len({cell.lane.partition(":")[0] for cell in result.cells}) > 1
    (disk,) = {lane.image for lane in result.run.lanes}
    assert disk != base.manifest.disk_sha256
    assert not run.told.noted("is not the same image everywhere")
    found = prepare_image.find(fleet.paths, guest, base)
    assert found
    assert found.manifest.disk_sha256 == disk
    # A host that had it from another one prepared none, and the next run needs nothing but that.
    prepared = [*tmp_path.glob("*/cache/images/prepared-*/")]
    assert len(prepared) == 1
    with running(fleet, tmp_path / "again", CLOUD, has_images=False) as run:
        run.start_host("three", prepares={"inputs": "0" * 64, "base": "0" * 64})
        again = run.finish()
    assert {lane.image for lane in again.run.lanes} == {disk}


def test_a_host_that_is_lost_while_it_prepares_is_followed_by_another(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = CLOUD[0].guest
    base = put_published(fleet.paths, guest)
    prepares = {"inputs": prepare_image.inputs_digest(guest, base), "base": base.manifest.disk_sha256}
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 1.0)
    with running(fleet, tmp_path / "run", CLOUD, most_seconds=1.0, has_images=False) as run:
        run.start_host("one", until=str(tmp_path / "never"), prepares=prepares)
        run.told.wait(lambda: "waiting" in [text for _, text in run.told.lanes])
        run.start_host("two", prepares=prepares)
        run.told.wait(lambda: run.told.noted("two joined"))
        fleet.hosts["one"].kill()
        result = run.finish()
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert {cell.lane.partition(":")[0] for cell in result.cells} == {"two"}
    assert [file.parts[-4] for file in tmp_path.glob("*/cache/images/prepared-*/")] == ["two"]


@pytest.mark.usefixtures("no_rest")
def test_a_chunk_that_is_damaged_on_its_way_costs_a_second_try(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        chunk, damaged = run.desk.pinning.chunk, list[str]()

        def damage(digest: str, name: str, offset: int) -> bytes:
            data = chunk(digest, name, offset)
            if name == "initrd" and offset and not damaged:
                damaged.append(name)
                return data[:-1] + b"x"
            return data

        monkeypatch.setattr(run.desk.pinning, "chunk", damage)
        run.start_host("one")
        result = run.finish()
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert ["arrived damaged" in "".join(cell.retried) for cell in result.cells] == [True] * len(ONE_GUEST)
    assert len(stored(fleet.paths_of("one"))) == 1


def test_a_transfer_that_is_cut_leaves_nothing_half_made(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        chunk = run.desk.pinning.chunk

        def cut(digest: str, name: str, offset: int) -> bytes:
            if name == "initrd" and offset and not run.told.noted("one has gone"):
                fleet.hosts["one"].kill()
            return chunk(digest, name, offset)

        monkeypatch.setattr(run.desk.pinning, "chunk", cut)
        run.start_host("one")
        run.told.wait(lambda: run.told.noted("one has gone, in the middle of a part"))
        run.start_host("two")
        result = run.finish()
        assert {tuple(cell.retried) for cell in result.cells} == {("one was lost",)}
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"two"}
        # What the killed one left has another name than an image, and the next transfer begins anew.
        assert transfer.offered(fleet.paths_of("one")) == []
    with running(fleet, tmp_path / "again", ONE_GUEST) as run:
        run.start_host("one")
        assert {cell.status for cell in run.finish().cells} == {Status.PASS}
    assert [*stored(fleet.paths_of("one"))] == [*stored(fleet.paths_of("two"))]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The cache of host one, on a file system that has room for half of an image."""
    try:
        with mounted(tmp_path / "one" / "cache", "size=5m") as folder:
            yield folder
    except NoMounts as error:
        pytest.skip(str(error))


def test_a_host_without_room_for_an_image_is_told_and_another_one_goes_on(
    fleet: Fleet, tmp_path: Path, small_disk: Path
) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        run.start_host("one")
        run.told.wait(lambda: run.told.noted("needs 0.0 GiB free in"))
        run.start_host("two")
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"two"}
        assert stored(fleet.paths_of("one")) == {}


def test_a_host_whose_disk_fills_up_while_an_image_comes_keeps_nothing_of_it(
    fleet: Fleet, tmp_path: Path, small_disk: Path
) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        run.start_host("one", ignore_room=True)
        run.told.wait(lambda: run.told.noted("failed and its files were deleted: No space left on device"))
        run.start_host("two")
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert stored(fleet.paths_of("one")) == {}


def test_a_host_s_image_that_is_not_what_it_said_is_not_taken(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = put_image(fleet.paths_of("one"), GUEST)
    kernel = image.folder / "vmlinuz"
    kernel.chmod(0o644)
    kernel.write_text(kernel.read_text().replace("a", "b", 1))
    good = put_image(fleet.paths_of("two"), GUEST, kib=512)
    with running(fleet, tmp_path / "run", ONE_GUEST, has_images=False) as run:
        run.start_host("one")
        run.told.wait(lambda: run.told.noted("its image did not come from one: vmlinuz of debian-13 arrived"))
        run.start_host("two")
        result = run.finish()
    assert {cell.status for cell in result.cells} == {Status.PASS}
    assert {lane.image for lane in result.run.lanes} == {good.manifest.disk_sha256}
    assert [*stored(fleet.paths).values()] == [good.content.digest]
