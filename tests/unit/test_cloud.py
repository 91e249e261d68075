"""Downloading cloud guests from a mirror on the loopback interface into the store."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import catalog
from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.catalog import Firmware, Guest, loading
from lab.images import cloud, store
from lab.images.store import BaseImage
from tests.builders.guests import no_say
from tests.builders.mirror import (
    Mirror,
    Request,
    SigningKey,
    breaks_off,
    checksums_path,
    guest,
    path_of,
    pin,
    status,
    well,
)

Keys = dict[str, SigningKey]
Publish = Callable[..., Guest]
SIGNED = ["ubuntu-24.04", "fedora-44", "almalinux-10"]
# Those whose disks nobody signs, with a build.
UNSIGNED = {
    "debian-13-cloud": "20261101-2300",
    "rocky-10": "10.3-20261101.0",
    "centos-stream-10": "20261101.0",
    "amazonlinux-2023": "2023.12.20261101.0",
    "arch": "20261101.604814",
}
GUESTS = [*SIGNED, *UNSIGNED]
BUILD = UNSIGNED["debian-13-cloud"]


@pytest.fixture
def publish(mirror: Mirror, root: Path, keys: Keys, disk: bytes) -> Publish:
    """Serve a guest's disk as its distribution does, and return the guest."""

    def serve(name: str, *, content: bytes = disk, key: str = "good") -> Guest:
        if name in UNSIGNED:
            pin(root, name, UNSIGNED[name], f"sha512:{hashlib.sha512(content).hexdigest()}")
        mirror.publish(guest(name), content, keys[key])
        return guest(name)

    return serve


def left(paths: Paths) -> list[str]:
    """The complete and partial files in the store, without locks."""
    found = [*paths.images.glob("*"), *paths.downloads.glob("*")]
    return sorted(path.name for path in found if path.suffix != ".lock")


@pytest.mark.parametrize(
    ("name", "address", "checksums"),
    [
        (
            "ubuntu-22.04",
            "https://cloud-images.ubuntu.com/releases/jammy/release-20260913/ubuntu-22.04-server-cloudimg-amd64.img",
            "https://cloud-images.ubuntu.com/releases/jammy/release-20260913/SHA256SUMS",
        ),
        (
            "fedora-44",
            "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/x86_64/images/"
            "Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2",
            "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/x86_64/images/"
            "Fedora-Cloud-44-1.7-x86_64-CHECKSUM",
        ),
        (
            "almalinux-10",
            "https://repo.almalinux.org/almalinux/10/cloud/x86_64/images/"
            "AlmaLinux-10-GenericCloud-10.2-20260526.0.x86_64.qcow2",
            "https://repo.almalinux.org/almalinux/10/cloud/x86_64/images/CHECKSUM",
        ),
        (
            "amazonlinux-2023",
            "https://cdn.amazonlinux.com/al2023/os-images/2023.12.20260909.0/kvm/"
            "al2023-kvm-2023.12.20260909.0-kernel-6.1-x86_64.xfs.gpt.qcow2",
            None,
        ),
        ("debian-13-cloud", None, None),
    ],
)
def test_shipped_definitions_lead_to_disks(name: str, address: str | None, checksums: str | None) -> None:
    image = store.cloud_image(guest(name))
    assert (image.address, image.checksums_address) == (address, checksums)


@pytest.mark.parametrize("name", GUESTS)
def test_a_disk_is_kept_under_its_digest_read_only_and_found_again(
    mirror: Mirror, publish: Publish, paths: Paths, disk: bytes, name: str
) -> None:
    wanted = publish(name)
    image = store.ensure(paths, wanted, no_say)
    digest = hashlib.sha256(disk).hexdigest()
    assert image.disk.read_bytes() == disk
    assert (image.folder.name, image.manifest.disk_sha256) == (f"{name}-{digest[:16]}", digest)
    assert image.manifest.source == f"{mirror.url}{path_of(wanted)}"
    # It has no kernel to try KVM with.
    assert (image.firmware, store.any_image(paths)) == (Firmware.BIOS, None)
    assert {file.stat().st_mode & 0o777 for file in image.folder.iterdir()} == {0o444}
    assert left(paths) == [image.folder.name]
    mirror.asked.clear()
    assert store.find(paths, wanted) == store.ensure(paths, wanted, no_say) == image
    assert mirror.asked == []


def refused(paths: Paths, wanted: Guest) -> str:
    """Return the reason why a guest has no image; check that nothing is left behind."""
    with pytest.raises(ImageNotAvailable) as error:
        store.ensure(paths, wanted, no_say)
    assert left(paths) == []
    assert store.find(paths, wanted) is None
    return str(error.value.args[0])


@pytest.mark.parametrize("name", GUESTS)
def test_a_disk_with_another_digest_is_refused(
    mirror: Mirror, publish: Publish, paths: Paths, disk: bytes, name: str
) -> None:
    wanted = publish(name)
    mirror.files[path_of(wanted)] = disk[:-1] + b"?"
    assert refused(paths, wanted).endswith(f" of {mirror.host} does not have the expected digest")
    mirror.files[path_of(wanted)] = disk
    assert store.ensure(paths, wanted, no_say).disk.read_bytes() == disk


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize(
    ("key", "reason"), [("another", "it was signed by another key"), ("expired", "the key has expired")]
)
def test_checksums_signed_by_a_key_that_does_not_count_are_refused(
    publish: Publish, paths: Paths, root: Path, keys: Keys, name: str, key: str, reason: str
) -> None:
    if key == "expired":
        for file in (root / "images" / "keys").iterdir():
            file.write_text(keys[key].public)
    assert reason in refused(paths, publish(name, key=key))


@pytest.mark.parametrize("name", SIGNED)
def test_checksums_without_a_signature_are_refused(
    mirror: Mirror, publish: Publish, paths: Paths, disk: bytes, name: str
) -> None:
    wanted = publish(name)
    path = checksums_path(wanted)
    if name == "fedora-44":
        file = path_of(wanted).rpartition("/")[2]
        mirror.files[path] = f"SHA256 ({file}) = {hashlib.sha256(disk).hexdigest()}\n".encode()
        assert "it contains no signature" in refused(paths, wanted)
    else:
        signature = next(name for name in mirror.files if name.startswith(f"{path}."))
        del mirror.files[signature]
        assert f"{Path(signature).name} of {mirror.host}: HTTP 404 Not Found" in refused(paths, wanted)


@pytest.mark.parametrize("name", SIGNED)
def test_checksums_that_do_not_list_the_disk_are_refused(
    mirror: Mirror, publish: Publish, paths: Paths, keys: Keys, name: str
) -> None:
    wanted = publish(name)
    mirror.sign(wanted, f"{'0' * 64} *another.img\nSHA256 (another.qcow2) = {'0' * 64}\n", keys["good"])
    assert f" of {mirror.host} lists no digest for {path_of(wanted).rpartition('/')[2]}" in refused(
        paths, wanted
    )
    assert path_of(wanted) not in [path for path, _ in mirror.asked]


def test_two_digests_of_a_disk_are_refused(mirror: Mirror, publish: Publish, paths: Paths, keys: Keys) -> None:
    wanted = publish("ubuntu-24.04")
    name = path_of(wanted).rpartition("/")[2]
    mirror.sign(wanted, "".join(f"{digit * 64} *{name}\n" for digit in "01"), keys["good"])
    assert refused(paths, wanted) == f"SHA256SUMS of {mirror.host} lists several digests for {name}"


@pytest.mark.parametrize(
    ("line", "is_listed"),
    [
        ("{0} *disk.img", True),
        ("{0}  disk.img", True),
        ("SHA256 (disk.img) = {0}", True),
        ("{0} *disk.img\r", True),
        ("{0} disk.img", False),
        ("{0} *disk.img.zst", False),
        ("SHA1 (disk.img) = {0}", False),
        ("{0}0 *disk.img", False),
        ("x{0} *disk.img", False),
    ],
)
def test_every_way_to_write_a_checksum_of_the_disk_is_read_and_nothing_else(line: str, is_listed: bool) -> None:
    text = f"# disk.img: 5 bytes\n{'1' * 64} *other-disk.img\n{line.format('0' * 64)}\n"
    try:
        assert cloud.find_digest(text, "disk.img", "https://host/SUMS") == "0" * 64
        assert is_listed
    except ImageNotAvailable as error:
        assert (is_listed, error.args[0]) == (False, "SUMS of host lists no digest for disk.img")


def disk_over_a_file(folder: Path) -> bytes:
    """A disk that has a file of this host as its content."""
    file = folder / "over.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", str(file), "1M"]
    process.run(words, timeout=60)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda _folder: b"<html>" * 200, "neither a qcow2 disk nor"),
        (lambda _folder: bytes(510) + b"\x55\xaa" + bytes(1 << 20), "is a raw disk, not qcow2"),
        (disk_over_a_file, "it refers to another file"),
    ],
)
def test_a_vouched_for_file_that_is_no_whole_disk_is_refused(
    publish: Publish, paths: Paths, tmp_path: Path, content: Callable[[Path], bytes], reason: str
) -> None:
    assert reason in refused(paths, publish("ubuntu-24.04", content=content(tmp_path)))


def test_an_unsigned_disk_needs_a_pinned_digest(mirror: Mirror, root: Path, paths: Paths) -> None:
    wanted = guest("debian-13-cloud")
    assert refused(paths, wanted) == "no digest is pinned yet, and the distribution does not sign one"
    with pytest.raises(ImageNotAvailable, match="lab images import FILE --as debian-13-cloud"):
        store.ensure(paths, wanted, no_say)
    assert mirror.asked == []


def test_a_broken_download_goes_on(mirror: Mirror, publish: Publish, paths: Paths, disk: bytes) -> None:
    wanted = publish("ubuntu-24.04")
    half = len(disk) // 2
    mirror.faults[path_of(wanted)] = [breaks_off(half), *[status(500)] * 3]
    with pytest.raises(ImageNotAvailable, match="HTTP 500"):
        store.ensure(paths, wanted, no_say)
    partial = paths.downloads / f"sha256-{hashlib.sha256(disk).hexdigest()}"
    assert (left(paths), partial.stat().st_size) == ([partial.name], half)
    assert store.find(paths, wanted) is None
    assert list(store.images(paths)) == []
    image = store.ensure(paths, wanted, no_say)
    assert image.disk.read_bytes() == disk
    assert left(paths) == [image.folder.name]


def test_a_changed_download_is_refused(mirror: Mirror, publish: Publish, paths: Paths, disk: bytes) -> None:
    wanted = publish("ubuntu-24.04")
    mirror.faults[path_of(wanted)] = [breaks_off(1000)]

    def lie(request: Request, body: bytes) -> None:
        length = len(disk) - 1000
        request.head(206, Content_Range=f"bytes 1000-{len(disk) - 1}/{len(disk)}", Content_Length=str(length))
        request.wfile.write(os.urandom(length))

    mirror.faults[path_of(wanted)].append(lie)
    assert "does not have the expected digest" in refused(paths, wanted)


def test_a_full_store_keeps_nothing(publish: Publish, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "seal", fail)
    wanted = publish("ubuntu-24.04")
    with pytest.raises(LabError, match="files were deleted: No space left on device"):
        store.ensure(paths, wanted, no_say)
    assert (list(store.images(paths)), list(paths.images.glob(".partial-*"))) == ([], [])


def swap(image: BaseImage, content: bytes) -> None:
    """Replace a file of the image, as root or the store's owner could."""
    image.disk.unlink()
    image.disk.write_bytes(content)


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_disk_that_changed_after_verification_is_not_used(
    publish: Publish, paths: Paths, disk: bytes, is_gone: bool
) -> None:
    wanted = publish("ubuntu-24.04")
    image = store.ensure(paths, wanted, no_say)
    swap(image, disk[:-1] + b"?")
    if is_gone:
        image.disk.unlink()
    for use in (store.ensure, store.update):
        with pytest.raises(ImageNotAvailable, match=f"{image.disk} was changed since it was stored") as error:
            use(paths, wanted, no_say)
        assert "lab images verify" in (error.value.hint or "")


def test_the_same_disk_at_another_time_is_the_same(publish: Publish, paths: Paths, disk: bytes) -> None:
    wanted = publish("ubuntu-24.04")
    image = store.ensure(paths, wanted, no_say)
    swap(image, disk)
    os.utime(image.disk, ns=(0, 0))
    assert store.ensure(paths, wanted, no_say) == image


def test_a_newer_build_has_to_be_asked_for_and_verified(
    mirror: Mirror, publish: Publish, paths: Paths, disk: bytes
) -> None:
    wanted = publish("ubuntu-24.04")
    old = store.ensure(paths, wanted, no_say)
    newer = disk + bytes(512)
    publish("ubuntu-24.04", content=newer, key="another")
    mirror.asked.clear()
    assert store.ensure(paths, wanted, no_say) == old
    assert mirror.asked == []
    with pytest.raises(ImageNotAvailable, match="another key"):
        store.update(paths, wanted, no_say)
    assert store.ensure(paths, wanted, no_say) == old
    publish("ubuntu-24.04", content=newer)
    new = store.update(paths, wanted, no_say)
    assert (new.disk.read_bytes(), old.disk.read_bytes()) == (newer, disk)
    assert store.find(paths, wanted) == store.ensure(paths, wanted, no_say) == new


@pytest.mark.parametrize("name", GUESTS)
def test_an_update_may_find_nothing_newer(mirror: Mirror, publish: Publish, paths: Paths, name: str) -> None:
    wanted = publish(name)
    image = store.ensure(paths, wanted, no_say)
    mirror.asked.clear()
    assert store.update(paths, wanted, no_say) == image
    assert path_of(wanted) not in [path for path, _ in mirror.asked]
    assert bool(mirror.asked) is (name in SIGNED)


def test_a_disk_of_another_definition_does_not_count(publish: Publish, paths: Paths, root: Path) -> None:
    store.ensure(paths, publish("ubuntu-24.04"), no_say)
    file = root / "images" / "pins" / "pins.toml"
    file.write_text(file.read_text().replace('"release-20260926"', '"release-20261101"'))
    loading.load.cache_clear()  # As another process sees it.
    assert store.find(paths, guest("ubuntu-24.04")) is None


def test_two_guests_with_one_disk_have_an_image_each(publish: Publish, paths: Paths, root: Path) -> None:
    text = (root / "images" / "ubuntu-24.04.toml").read_text()
    text = text.replace("builds = ", 'build = "release-20260926"\nbuilds = ')
    (root / "images" / "ubuntu-24.04-uefi.toml").write_text(text.replace('"bios"', '"uefi"'))
    bios = store.ensure(paths, publish("ubuntu-24.04"), no_say)
    uefi = store.ensure(paths, guest("ubuntu-24.04-uefi"), no_say)
    assert uefi.folder != bios.folder
    assert (bios.firmware, uefi.firmware) == (Firmware.BIOS, Firmware.UEFI)
    assert [store.find(paths, guest(name)) for name in ("ubuntu-24.04", "ubuntu-24.04-uefi")] == [bios, uefi]


@pytest.mark.parametrize("name", ["ubuntu-24.04", "debian-13"])
def test_offline_the_network_is_left_alone(
    mirror: Mirror, publish: Publish, paths: Paths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    publish("ubuntu-24.04")
    with pytest.raises(ImageNotAvailable, match="not in the store, and --offline forbids fetching it"):
        store.ensure(paths, guest(name), no_say, offline=True)
    assert mirror.asked == []
    assert left(paths) == []


def test_offline_what_is_there_is_used(mirror: Mirror, publish: Publish, paths: Paths) -> None:
    wanted = publish("ubuntu-24.04")
    image = store.ensure(paths, wanted, no_say)
    mirror.asked.clear()
    assert store.ensure(paths, wanted, no_say, offline=True) == image
    assert mirror.asked == []


@pytest.mark.parametrize("name", GUESTS)
def test_two_labs_at_once_download_a_disk_once(
    mirror: Mirror, publish: Publish, paths: Paths, disk: bytes, name: str
) -> None:
    wanted = publish(name)
    downloading, waiting = threading.Event(), threading.Event()
    found: list[BaseImage] = []

    def slow(request: Request, body: bytes) -> None:
        downloading.set()
        assert waiting.wait(30)
        well(request, body)

    def say_second(text: str) -> None:
        if text == "waiting for this image to be downloaded":
            waiting.set()

    mirror.faults[path_of(wanted)] = [slow]
    first = threading.Thread(target=lambda: found.append(store.ensure(paths, wanted, no_say)))
    first.start()
    assert downloading.wait(30)
    found.append(store.ensure(paths, wanted, say_second))
    first.join(30)
    assert found[0] == found[1]
    assert sum(path == path_of(wanted) for path, _ in mirror.asked) == 1
    assert sha256(found[0].disk) == hashlib.sha256(disk).hexdigest()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('key = "ubuntu-cloud.asc"', 'key = "nobody.asc"', "image.checksums.key: there is no file "),
        ('key = "ubuntu-cloud.asc"', 'key = "../x.asc"', "image.checksums.key: "),
        ('form = "detached"', 'form = "spoken"', "image.checksums.form: "),
        ('firmware = "bios"', 'firmware = "coreboot"', "image.firmware: "),
        ('package_manager = "apt"', 'package_manager = "brew"', "image.package_manager: "),
        ('url = "http:', 'url = "file:', "image.url: "),
        ('kind = "cloud"', 'kind = "cloud"\ndigest = "sha256:12"', "image.digest: "),
        ('kind = "cloud"', f'kind = "cloud"\ndigest = "sha256:{"0" * 64}"', "only one of `checksums` and"),
        ('user = "ubuntu"', "", "image.user: "),
        (
            "builds = 'release-\\d{8}(\\.\\d+)?'",
            "builds = '20(26'",
            "image.builds: expected a regular expression: missing )",
        ),
    ],
)
def test_a_wrong_cloud_guest_names_file_and_key(root: Path, old: str, new: str, expected: str) -> None:
    file = root / "images" / "ubuntu-24.04.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UsageError) as error:
        catalog.load(root)
    assert str(error.value).startswith(f"{file}: ")
    assert expected in str(error.value)


def test_a_pinned_digest_is_that_of_one_build(root: Path) -> None:
    file = root / "images" / "debian-13-cloud.toml"
    file.write_text(
        file.read_text().replace('kind = "cloud"', f'kind = "cloud"\ndigest = "sha512:{"0" * 128}"')
    )
    with pytest.raises(UsageError, match="`build` must be given with `digest`"):
        catalog.load(root)
