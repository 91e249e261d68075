import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base.errors import LabError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.catalog import DebianImage
from lab.images import debian, store
from lab.lane import upkeep
from tests.builders.guests import TwoLabs, no_say

KNOWN = catalog.load()
GUEST = KNOWN.guest("debian-13")
Say = Callable[[str], None]
pytestmark = pytest.mark.usefixtures("roomy")


def fill(folder: Path) -> None:
    """Write the files that a build leaves."""
    for name in debian.FILES:
        (folder / name).write_text(f"content of {name}")


def build_well(_image: DebianImage, out: Path, _say: Say, *, timeout: float) -> float:
    fill(out)
    return 12.34


@pytest.fixture
def building(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Builds that finish immediately."""
    monkeypatch.setattr(debian, "build", build_well)
    return monkeypatch


def folders(paths: Paths) -> list[str]:
    return [entry.name for entry in paths.images.iterdir() if entry.is_dir()]


def with_image(**changes: Any) -> catalog.Guest:
    return GUEST.model_copy(update={"image": GUEST.image.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("guest", "is_same"),
    [
        (with_image(suite="bookworm"), False),
        (with_image(backports=["bubblewrap"]), False),
        (with_image(packages=["vim"]), False),
        (with_image(disk_gib=7), False),
        # What is not in the image does not change it.
        (GUEST.model_copy(update={"title": "Another title", "memory_mib": 4096}), True),
    ],
)
def test_an_image_of_another_definition_is_another_image(guest: catalog.Guest, is_same: bool) -> None:
    assert (store.inputs_digest(guest) == store.inputs_digest(GUEST)) is is_same


def test_a_built_image_is_read_only_and_not_built_again(paths: Paths, building: pytest.MonkeyPatch) -> None:
    # One of an older definition does not count.
    store.ensure(paths, with_image(packages=["vim"]), no_say)
    assert store.find(paths, GUEST) is None
    image = store.ensure(paths, GUEST, no_say)
    building.setattr(debian, "build", None)
    assert store.find(paths, GUEST) == store.ensure(paths, GUEST, no_say) == image
    assert store.any_image(paths) is not None
    assert {file.name for file in image.folder.iterdir()} == {*debian.FILES, "manifest.json"}
    assert {file.stat().st_mode & 0o777 for file in image.folder.iterdir()} == {0o444}
    assert image.manifest.disk_sha256 == sha256(image.disk)
    assert image.manifest.inputs == store.inputs_digest(GUEST)
    assert image.folder.name == f"debian-13-{store.inputs_digest(GUEST)[:16]}"


@pytest.mark.parametrize("text", [None, "", "[]", '{"guest": "debian-13", "more": 1}'])
def test_a_folder_without_a_whole_manifest_is_no_image_and_is_made_again(
    paths: Paths, building: pytest.MonkeyPatch, text: str | None
) -> None:
    built = store.ensure(paths, GUEST, no_say)
    manifest = built.folder / "manifest.json"
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    assert store.find(paths, GUEST) is None
    assert store.any_image(paths) is None
    assert [unused.path for unused in upkeep.prune(paths, KNOWN, dry_run=True)] == [built.folder]
    assert store.ensure(paths, GUEST, no_say).folder == built.folder
    assert store.find(paths, GUEST)


def test_what_a_killed_build_left_is_removed_by_the_next(paths: Paths, building: pytest.MonkeyPatch) -> None:
    image = store.ensure(paths, GUEST, no_say)
    partial = image.folder.with_name(f".partial-{image.folder.name}")
    image.folder.rename(partial)
    (partial / "build-abc").mkdir()
    assert (store.find(paths, GUEST), store.any_image(paths)) == (None, None)
    assert store.ensure(paths, GUEST, no_say).folder == image.folder
    assert folders(paths) == [image.folder.name]
    assert not (image.folder / "build-abc").exists()


def test_too_little_space_is_said_before_anything_is_built(paths: Paths, building: pytest.MonkeyPatch) -> None:
    building.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**30))
    with pytest.raises(LabError, match=r"debian-13 needs 3.0 GiB free in .*; there are 1\.0") as error:
        store.ensure(paths, GUEST, no_say)
    assert "free some disk space" in (error.value.hint or "")
    assert folders(paths) == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), LabError)],
)
def test_a_build_that_fails_half_way_leaves_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: type[BaseException]
) -> None:
    def fail(_image: DebianImage, out: Path, _say: Say, *, timeout: float) -> float:
        fill(out)
        raise raised

    monkeypatch.setattr(debian, "build", fail)
    with pytest.raises(expected):
        store.ensure(paths, GUEST, no_say)
    assert (folders(paths), store.find(paths, GUEST)) == ([], None)
    monkeypatch.setattr(debian, "build", build_well)
    assert store.ensure(paths, GUEST, no_say).disk.exists()


def test_the_full_disk_is_the_one_written_to(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_image: DebianImage, out: Path, _say: Say, *, timeout: float) -> float:
        source, target = "/dev/shm/made/disk.qcow2", str(out / "disk.qcow2")
        raise OSError(errno.ENOSPC, "No space left on device", source, None, target)

    monkeypatch.setattr(debian, "build", fail)
    with pytest.raises(LabError, match=rf"No space left on device: {paths.images}/\S+/disk\.qcow2"):
        store.ensure(paths, GUEST, no_say)


def test_two_labs_at_once_build_an_image_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    labs = TwoLabs("built")
    built: list[str] = []

    def build(image: DebianImage, out: Path, say: Say, *, timeout: float) -> float:
        labs.work()
        built.append(image.suite)
        return build_well(image, out, say, timeout=timeout)

    monkeypatch.setattr(debian, "build", build)
    first, second = labs.run(lambda say: store.ensure(paths, GUEST, say))
    assert (first, built) == (second, ["trixie"])
