"""The store of images: building, importing, verifying and pruning."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from lab import catalog
from lab.base import process
from lab.base.activity import UNWATCHED, Task
from lab.base.errors import LabError, UsageError
from lab.base.files import compute_digest, hash_file
from lab.base.paths import Paths
from lab.builds import wheels
from lab.catalog import Catalog, DebianImage, Firmware
from lab.images import debian, store
from lab.images.store import DISK, BaseImage, ImageManifest, StoredFile
from lab.lane import upkeep
from lab.record import LaneRecord
from tests.builders.cells import cell
from tests.builders.guests import TwoLabs, base_image, make_disk
from tests.builders.mirror import Mirror, pin
from tests.builders.runs import run_of

KNOWN = catalog.load_catalog()
GUEST = KNOWN.guest("debian-13")
pytestmark = pytest.mark.usefixtures("roomy", "x86_64_host")


def fill(folder: Path) -> None:
    for name in debian.FILES:
        (folder / name).write_text(f"content of {name}")


def build_well(
    _image: DebianImage, out: Path, _task: Task, *, timeout: float, architecture: object = None
) -> float:
    fill(out)
    return 12.34


@pytest.fixture
def building(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(debian, "build_image", build_well)
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
    assert (store.compute_inputs_digest(guest) == store.compute_inputs_digest(GUEST)) is is_same


def test_a_built_image_is_read_only_and_not_built_again(paths: Paths, building: pytest.MonkeyPatch) -> None:
    # One of an older definition does not count.
    store.ensure_image(paths, with_image(packages=["vim"]), UNWATCHED)
    assert store.find_image(paths, GUEST) is None
    image = store.ensure_image(paths, GUEST, UNWATCHED)
    building.setattr(debian, "build_image", None)
    assert store.find_image(paths, GUEST) == store.ensure_image(paths, GUEST, UNWATCHED) == image
    assert store.find_any_image(paths) is not None
    assert {file.name for file in image.folder.iterdir()} == {*debian.FILES, "manifest.json"}
    assert {file.stat().st_mode & 0o777 for file in image.folder.iterdir()} == {0o444}
    assert image.manifest.disk_sha256 == hash_file(image.disk)
    assert image.manifest.inputs == store.compute_inputs_digest(GUEST)
    assert image.folder.name == f"debian-13-{store.compute_inputs_digest(GUEST)[:16]}"


@pytest.mark.parametrize("text", [None, "", "[]", '{"guest": "debian-13", "more": 1}'])
def test_no_image_without_whole_manifest(paths: Paths, building: pytest.MonkeyPatch, text: str | None) -> None:
    built = store.ensure_image(paths, GUEST, UNWATCHED)
    manifest = built.folder / "manifest.json"
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    assert store.find_image(paths, GUEST) is None
    assert store.find_any_image(paths) is None
    assert [unused.path for unused in upkeep.prune_store(paths, KNOWN, dry_run=True)] == [built.folder]
    assert store.ensure_image(paths, GUEST, UNWATCHED).folder == built.folder
    assert store.find_image(paths, GUEST)


def test_what_a_killed_build_left_is_removed_by_the_next(paths: Paths, building: pytest.MonkeyPatch) -> None:
    image = store.ensure_image(paths, GUEST, UNWATCHED)
    partial = image.folder.with_name(f".partial-{image.folder.name}")
    image.folder.rename(partial)
    (partial / "build-abc").mkdir()
    assert (store.find_image(paths, GUEST), store.find_any_image(paths)) == (None, None)
    assert store.ensure_image(paths, GUEST, UNWATCHED).folder == image.folder
    assert folders(paths) == [image.folder.name]
    assert not (image.folder / "build-abc").exists()


def test_too_little_space_is_said_before_anything_is_built(paths: Paths, building: pytest.MonkeyPatch) -> None:
    building.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**30))
    with pytest.raises(LabError, match=r"debian-13 needs 3.0 GiB free in .*; there are 1\.0") as error:
        store.ensure_image(paths, GUEST, UNWATCHED)
    assert "free some disk space" in (error.value.hint or "")
    assert folders(paths) == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), LabError)],
)
def test_a_build_that_fails_half_way_leaves_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: type[BaseException]
) -> None:
    def fail(
        _image: DebianImage, out: Path, _task: Task, *, timeout: float, architecture: object = None
    ) -> float:
        fill(out)
        raise raised

    monkeypatch.setattr(debian, "build_image", fail)
    with pytest.raises(expected):
        store.ensure_image(paths, GUEST, UNWATCHED)
    assert (folders(paths), store.find_image(paths, GUEST)) == ([], None)
    monkeypatch.setattr(debian, "build_image", build_well)
    assert store.ensure_image(paths, GUEST, UNWATCHED).disk.exists()


def test_the_full_disk_is_the_one_written_to(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(
        _image: DebianImage, out: Path, _task: Task, *, timeout: float, architecture: object = None
    ) -> float:
        source, target = "/dev/shm/made/disk.qcow2", str(out / "disk.qcow2")
        raise OSError(errno.ENOSPC, "No space left on device", source, None, target)

    monkeypatch.setattr(debian, "build_image", fail)
    with pytest.raises(LabError, match=rf"No space left on device: {paths.images}/\S+/disk\.qcow2"):
        store.ensure_image(paths, GUEST, UNWATCHED)


def test_two_labs_at_once_build_an_image_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    labs = TwoLabs("built")
    built: list[str] = []

    def build(
        image: DebianImage, out: Path, task: Task, *, timeout: float, architecture: object = None
    ) -> float:
        labs.work()
        built.append(image.suite)
        return build_well(image, out, task, timeout=timeout)

    monkeypatch.setattr(debian, "build_image", build)
    first, second = labs.run(lambda task: store.ensure_image(paths, GUEST, task))
    assert (first, built) == (second, ["trixie"])


CLOUD = "debian-13-cloud"


@pytest.fixture
def definitions(root: Path) -> Catalog:
    return catalog.load_catalog()


@pytest.fixture
def file(disk: bytes, tmp_path: Path) -> Path:
    """A disk of the user's own."""
    made = tmp_path / "mine.qcow2"
    made.write_bytes(disk)
    return made


@pytest.fixture
def built(paths: Paths, definitions: Catalog, monkeypatch: pytest.MonkeyPatch) -> BaseImage:
    monkeypatch.setattr(debian, "build_image", build_well)
    return store.ensure_image(paths, definitions.guest("debian-13"), UNWATCHED)


@pytest.fixture
def imported(paths: Paths, definitions: Catalog, file: Path) -> BaseImage:
    return store.import_image(paths, definitions.guest(CLOUD), file, UNWATCHED)


def entries(paths: Paths) -> set[str]:
    return {path.name for path in paths.images.glob("*/")}


# -- importing


def test_an_imported_disk_is_the_guest_s_image(
    paths: Paths, definitions: Catalog, imported: BaseImage, file: Path, mirror: Mirror
) -> None:
    assert imported.disk.read_bytes() == file.read_bytes()
    assert imported.manifest.disk_sha256 == hash_file(file)
    assert (imported.manifest.source, imported.firmware) == ("imported from mine.qcow2", Firmware.BIOS)
    assert store.ensure_image(paths, definitions.guest(CLOUD), UNWATCHED) == imported
    assert list(paths.downloads.iterdir()) == []
    assert mirror.requests == []


def test_the_disk_that_was_imported_last_is_the_guest_s(
    paths: Paths, definitions: Catalog, imported: BaseImage, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.qcow2"
    make_disk(other, 2048)
    guest = definitions.guest(CLOUD)
    new = store.import_image(paths, guest, other, UNWATCHED)
    assert store.find_image(paths, guest) == new
    again = store.import_image(paths, guest, file, UNWATCHED)
    assert (again.folder, store.find_image(paths, guest)) == (imported.folder, again)
    store.check_image(again)


@pytest.mark.parametrize(
    ("form", "reason"),
    [("raw", "form raw, not qcow2"), ("vmdk", "form vmdk, not qcow2"), ("qcow2", "refers to another file")],
)
def test_a_disk_that_no_guest_can_start_from_is_not_imported(
    paths: Paths, definitions: Catalog, file: Path, tmp_path: Path, form: str, reason: str
) -> None:
    made = tmp_path / "made"
    over = ["-b", str(file), "-F", "qcow2"] if form == "qcow2" else []
    process.run_command(["qemu-img", "create", "-q", "-f", form, *over, made, "1M"], timeout=60)
    with pytest.raises(UsageError, match=reason):
        store.import_image(paths, definitions.guest(CLOUD), made, UNWATCHED)
    assert not paths.images.exists()


def test_a_disk_other_than_the_pinned_one_is_not_imported(paths: Paths, root: Path, file: Path) -> None:
    pin(root, CLOUD, "20261101-2300", f"sha512:{'0' * 128}")
    with pytest.raises(UsageError, match=f"does not have the digest that images/{CLOUD}.toml pins"):
        store.import_image(paths, catalog.load_catalog().guest(CLOUD), file, UNWATCHED)
    with pytest.raises(UsageError, match="the image of debian-13 is built locally"):
        store.import_image(paths, catalog.load_catalog().guest("debian-13"), file, UNWATCHED)


def test_the_pinned_disk_is_imported(paths: Paths, root: Path, file: Path) -> None:
    pin(root, CLOUD, "20261101-2300", f"sha512:{compute_digest(file, 'sha512')}")
    guest = catalog.load_catalog().guest(CLOUD)
    assert store.import_image(paths, guest, file, UNWATCHED) == store.find_image(paths, guest)


def test_a_full_disk_is_said_and_nothing_is_kept(
    paths: Paths, definitions: Catalog, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_source: Path, copy: Path) -> None:
        copy.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(LabError, match="cannot be copied into the store: No space left on device"):
        store.import_image(paths, definitions.guest(CLOUD), file, UNWATCHED)
    assert list(paths.downloads.iterdir()) == []
    assert entries(paths) == set()


# -- verifying


def change(file: Path) -> None:
    """Change a file's content but not its size and time."""
    told = file.stat()
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize("name", debian.FILES)
def test_every_file_that_was_changed_is_found_and_its_image_is_not_used(
    paths: Paths, definitions: Catalog, built: BaseImage, imported: BaseImage, name: str
) -> None:
    change(built.folder / name)
    wrong = {image.folder: problem for image, problem in upkeep.verify_images(paths)}
    assert wrong[imported.folder] == ""
    assert wrong[built.folder].startswith(f"{name} was changed: its sha256 is ")
    assert f"set aside as {paths.images}/.changed-" in wrong[built.folder]
    assert store.find_image(paths, definitions.guest("debian-13")) is None
    assert store.find_any_image(paths) is None
    rebuilt = store.ensure_image(paths, definitions.guest("debian-13"), UNWATCHED)
    assert rebuilt.disk.read_text() == "content of disk.qcow2"
    assert [problem for _, problem in upkeep.verify_images(paths)] == ["", ""]
    (built.folder / name).unlink()
    [gone] = [problem for _, problem in upkeep.verify_images(paths) if problem]
    assert gone.startswith(f"{name} cannot be read: No such file or directory")


# -- pruning


def removed(paths: Paths, definitions: Catalog) -> set[str]:
    return {unused.path.name for unused in upkeep.prune_store(paths, definitions, dry_run=False)}


def without(definitions: Catalog, *names: str) -> Catalog:
    guests = {name: guest for name, guest in definitions.guests.items() if name not in names}
    return Catalog(guests, definitions.variants, definitions.sets, definitions.suite)


def test_what_no_guest_uses_goes(
    paths: Paths, definitions: Catalog, built: BaseImage, imported: BaseImage
) -> None:
    assert removed(paths, definitions) == set()
    assert removed(paths, without(definitions, CLOUD)) == {imported.folder.name}
    assert removed(paths, without(definitions, CLOUD, "debian-13")) == {built.folder.name}
    assert entries(paths) == set()


def test_what_a_run_used_stays(
    paths: Paths, definitions: Catalog, built: BaseImage, imported: BaseImage
) -> None:
    folder = paths.runs / "20261124-160000"
    folder.mkdir(parents=True)
    lane = LaneRecord(guest=CLOUD, image=imported.manifest.disk_sha256, fork="memory", seconds={})
    run_of(cell(), lanes=[lane]).write(folder)
    (paths.runs / "no-text").mkdir()
    (paths.runs / "no-text" / "results.json").write_bytes(b"\xff\xfe")
    assert removed(paths, without(definitions, CLOUD, "debian-13")) == {built.folder.name}


def test_only_what_no_lab_uses_is_removed(paths: Paths, definitions: Catalog, imported: BaseImage) -> None:
    for name in (".changed-sha256-1", ".partial-debian-12-1", ".partial-debian-13-1"):
        (paths.images / name).mkdir()
        (paths.images / name / "disk.qcow2").touch()
    for name in ("sha256-2", "sha256-3", "import.qcow2"):
        (paths.downloads / name).touch()
    with FileLock(paths.images / "debian-13-1.lock"), FileLock(paths.downloads / "sha256-3.lock"):
        unused = {".changed-sha256-1", ".partial-debian-12-1", "sha256-2", "import.qcow2"}
        assert removed(paths, definitions) == unused
        assert removed(paths, definitions) == set()
    assert removed(paths, definitions) == {".partial-debian-13-1", "sha256-3"}
    assert entries(paths) == {imported.folder.name}


def test_wheels_that_a_killed_lab_was_fetching_are_swept_but_not_those_of_a_living_one(paths: Paths) -> None:
    folder = paths.make(wheels.get_wheel_store(paths))
    for name in (".partial-boxlite-1-cp313", ".partial-boxlite-2-cp313", "boxlite-3-cp313"):
        (folder / name).mkdir()
    with FileLock(folder / "boxlite-2-cp313.lock"):
        swept, stuck = upkeep.sweep_leftovers(paths)
    assert ([unused.path.name for unused in swept], stuck) == ([".partial-boxlite-1-cp313"], [])
    assert (folder / ".partial-boxlite-2-cp313").is_dir()
    assert (folder / "boxlite-3-cp313").is_dir()


def test_while_guests_run_nothing_is_pruned(paths: Paths, definitions: Catalog, built: BaseImage) -> None:
    (paths.lanes / "lab-debian-13-1").mkdir(parents=True)
    with pytest.raises(LabError, match="guests are running: lab-debian-13-1"):
        upkeep.prune_store(paths, without(definitions, "debian-13"), dry_run=False)
    assert entries(paths) == {built.folder.name}


def test_an_empty_store_is_well_and_has_nothing_to_prune(paths: Paths, definitions: Catalog) -> None:
    assert (list(upkeep.verify_images(paths)), removed(paths, definitions)) == ([], set())
    assert not paths.cache.exists()


def test_two_builds_with_the_same_packages_are_alike_whatever_their_disks_hold() -> None:
    def manifest(disk: str, **lists: str) -> ImageManifest:
        files = {DISK: disk, "vmlinuz": "b" * 64} | {f"{name}.tsv": digest for name, digest in lists.items()}
        stored = {name: StoredFile(sha256=sha256, size=1, modified_ns=1) for name, sha256 in files.items()}
        return base_image(Path("x")).manifest.model_copy(update={"disk_sha256": disk, "files": stored})

    first, again = (manifest(disk * 64, packages="a" * 64) for disk in "12")
    assert first.packages_digest == again.packages_digest == "a" * 64
    assert first.kernel_digest == "b" * 64
    # Of another image nobody has a list: only the same disk is the same image.
    assert manifest("3" * 64).packages_digest == "3" * 64
    assert base_image(Path("x")).manifest.kernel_digest == ""
