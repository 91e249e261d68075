"""Downloading cloud guests from a mirror on the loopback interface into the store."""

import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import catalog
from lab.base import process
from lab.base.activity import UNWATCHED, CancelToken, Task
from lab.base.errors import ImageNotAvailable, LabError, UsageError
from lab.base.paths import Paths
from lab.catalog import Firmware, Guest, loading
from lab.images import cloud, download, store
from tests.builders.guests import TwoLabs, task_to
from tests.builders.mirror import (
    Answer,
    Mirror,
    Request,
    SigningKey,
    breaks_off,
    checksums_path,
    endless,
    guest,
    path_of,
    pin,
    redirect,
    serving,
    status,
    well,
    whole,
)
from tests.conftest import Mount

Keys = dict[str, SigningKey]
Publish = Callable[..., Guest]
UBUNTU, FEDORA, ALMA, DEBIAN = "ubuntu-24.04", "fedora-44", "almalinux-10", "debian-13-cloud"
UBUNTU_ARM64, FEDORA_ARM64 = "ubuntu-24.04-arm64", "fedora-44-arm64"
# Those whose disks nobody signs, with a build.
UNSIGNED = {
    DEBIAN: "20261101-2300",
    "rocky-10": "10.3-20261101.0",
    "centos-stream-10": "20261101.0",
    "amazonlinux-2023": "2023.12.20261101.0",
    "arch": "20261101.604814",
}
SIGNED = [
    name for name, known in catalog.load_catalog().guests.items() if getattr(known.image, "checksums", None)
]
GUESTS = [*SIGNED, *UNSIGNED]
ADDRESSES = {
    FEDORA: (
        "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/x86_64/images",
        "Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2",
        "Fedora-Cloud-44-1.7-x86_64-CHECKSUM",
    ),
    FEDORA_ARM64: (
        "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/aarch64/images",
        "Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2",
        "Fedora-Cloud-44-1.7-aarch64-CHECKSUM",
    ),
    UBUNTU_ARM64: (
        "https://cloud-images.ubuntu.com/releases/noble/release-20260926",
        "ubuntu-24.04-server-cloudimg-arm64.img",
        "SHA256SUMS",
    ),
    "amazonlinux-2023": (
        "https://cdn.amazonlinux.com/al2023/os-images/2023.12.20260909.0/kvm",
        "al2023-kvm-2023.12.20260909.0-kernel-6.1-x86_64.xfs.gpt.qcow2",
        None,
    ),
}


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
    files = [*paths.images.glob("*"), *paths.downloads.glob("*")]
    return sorted(path.name for path in files if path.suffix != ".lock")


def requested(mirror: Mirror) -> list[str]:
    return [path for path, _ in mirror.requests]


@pytest.mark.parametrize("name", ADDRESSES)
def test_shipped_definitions_lead_to_disks(name: str) -> None:
    image = store.get_cloud_image(guest(name))
    folder, disk, checksums = ADDRESSES[name]
    assert image.address == f"{folder}/{disk}"
    assert image.checksums_address == (checksums and f"{folder}/{checksums}")


@pytest.mark.parametrize("name", GUESTS)
def test_a_disk_is_kept_under_its_digest_read_only_and_is_not_fetched_again(
    mirror: Mirror, publish: Publish, paths: Paths, disk: bytes, name: str
) -> None:
    published = publish(name)
    image = store.ensure_image(paths, published, UNWATCHED)
    digest = hashlib.sha256(disk).hexdigest()
    assert image.disk.read_bytes() == disk
    assert (image.folder.name, image.manifest.disk_sha256) == (f"{name}-{digest[:16]}", digest)
    assert image.manifest.source == f"{mirror.url}{path_of(published)}"
    # It has no kernel to try KVM with.
    firmware = Firmware.UEFI if published.arch == "aarch64" else Firmware.BIOS
    assert (image.firmware, store.find_any_image(paths)) == (firmware, None)
    assert image.architecture is published.architecture
    assert {file.stat().st_mode & 0o777 for file in image.folder.iterdir()} == {0o444}
    assert left(paths) == [image.folder.name]
    mirror.requests.clear()
    # A file that only looks changed is read.
    os.utime(image.disk, ns=(0, 0))
    assert store.find_image(paths, published) == store.ensure_image(paths, published, UNWATCHED) == image
    assert store.ensure_image(paths, published, UNWATCHED, offline=True) == image
    assert mirror.requests == []
    # An update asks for signed checksums; the disk is the one that is there.
    assert store.update_image(paths, published, UNWATCHED) == image
    assert path_of(published) not in requested(mirror)
    assert bool(mirror.requests) is (name not in UNSIGNED)


# --- what is refused ------------------------------------------------------------------------------------


def another_disk(mirror: Mirror, published: Guest, _keys: Keys, _folder: Path) -> None:
    mirror.files[path_of(published)] = mirror.files[path_of(published)][:-1] + b"?"


def another_rest(mirror: Mirror, published: Guest, _keys: Keys, _folder: Path) -> None:
    """A download breaks off, and what comes then is not of the same disk."""

    def lie(request: Request, body: bytes) -> None:
        length = len(body) - 1000
        request.head(206, Content_Range=f"bytes 1000-{len(body) - 1}/{len(body)}", Content_Length=str(length))
        request.wfile.write(os.urandom(length))

    mirror.faults[path_of(published)] = [breaks_off(1000), lie]


def no_signature(mirror: Mirror, published: Guest, _keys: Keys, _folder: Path) -> None:
    path, disk = checksums_path(published), mirror.files[path_of(published)]
    signatures = [name for name in mirror.files if name.startswith(f"{path}.")]
    for name in signatures:
        del mirror.files[name]
    if not signatures:  # It is in the text.
        line = f"SHA256 ({path_of(published).rpartition('/')[2]}) = {hashlib.sha256(disk).hexdigest()}\n"
        mirror.files[path] = line.encode()


def not_listed(mirror: Mirror, published: Guest, keys: Keys, _folder: Path) -> None:
    text = f"{'0' * 64} *another.img\nSHA256 (another.qcow2) = {'0' * 64}\n"
    mirror.sign(published, text, keys["good"])
    # It is not fetched, either.
    mirror.faults[path_of(published)] = [status(500)] * 9


def listed_twice(mirror: Mirror, published: Guest, keys: Keys, _folder: Path) -> None:
    name = path_of(published).rpartition("/")[2]
    mirror.sign(published, "".join(f"{digit * 64} *{name}\n" for digit in "01"), keys["good"])


def page(mirror: Mirror, published: Guest, keys: Keys, _folder: Path) -> None:
    mirror.publish(published, b"<html>" * 200, keys["good"])


def disk_over_a_file(mirror: Mirror, published: Guest, keys: Keys, folder: Path) -> None:
    """A disk that has a file of this host as its content."""
    file = folder / "over.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", str(file), "1M"]
    process.run_command(words, timeout=60)
    mirror.publish(published, file.read_bytes(), keys["good"])


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [
        *((name, another_disk, "IMAGE of HOST does not have the expected digest") for name in GUESTS),
        (UBUNTU, another_rest, "IMAGE of HOST does not have the expected digest"),
        (ALMA, no_signature, "CHECKSUM.asc of HOST: HTTP 404 Not Found"),
        (FEDORA, no_signature, "it contains no signature"),
        (FEDORA, not_listed, " of HOST lists no digest for IMAGE"),
        (UBUNTU, listed_twice, "SHA256SUMS of HOST lists several digests for IMAGE"),
        # What is vouched for has to be a whole disk as well.
        (UBUNTU, page, "form raw, not qcow2"),
        (UBUNTU, disk_over_a_file, "it refers to another file"),
    ],
)
def test_a_disk_that_is_not_vouched_for_is_refused_and_nothing_of_it_is_kept(
    mirror: Mirror,
    publish: Publish,
    paths: Paths,
    keys: Keys,
    disk: bytes,
    tmp_path: Path,
    name: str,
    fault: Callable[[Mirror, Guest, Keys, Path], None],
    reason: str,
) -> None:
    published = publish(name)
    fault(mirror, published, keys, tmp_path)
    with pytest.raises(ImageNotAvailable) as error:
        store.ensure_image(paths, published, UNWATCHED)
    image = path_of(published).rpartition("/")[2]
    assert reason.replace("HOST", mirror.host).replace("IMAGE", image) in str(error.value.args[0])
    assert (left(paths), store.find_image(paths, published)) == ([], None)
    # Once it is right, it is taken.
    mirror.faults.clear()
    mirror.publish(published, disk, keys["good"])
    assert store.ensure_image(paths, published, UNWATCHED).disk.read_bytes() == disk


@pytest.mark.parametrize(
    ("line", "is_listed"),
    [
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


def test_an_unsigned_disk_needs_a_pinned_digest(mirror: Mirror, root: Path, paths: Paths) -> None:
    with pytest.raises(ImageNotAvailable, match="no digest is pinned yet, and the distribution") as error:
        store.ensure_image(paths, guest(DEBIAN), UNWATCHED)
    assert f"lab images import FILE --as {DEBIAN}" in (error.value.hint or "")
    assert mirror.requests == []


@pytest.mark.parametrize("name", [UBUNTU, "debian-13"])
def test_offline_the_network_is_left_alone(mirror: Mirror, publish: Publish, paths: Paths, name: str) -> None:
    publish(UBUNTU)
    with pytest.raises(ImageNotAvailable, match="not in the store, and --offline forbids fetching it"):
        store.ensure_image(paths, guest(name), UNWATCHED, offline=True)
    assert (mirror.requests, left(paths)) == ([], [])


# --- what is stored -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_disk_that_changed_is_not_used(publish: Publish, paths: Paths, disk: bytes, is_gone: bool) -> None:
    published = publish(UBUNTU)
    image = store.ensure_image(paths, published, UNWATCHED)
    image.disk.unlink()
    if not is_gone:
        image.disk.write_bytes(disk[:-1] + b"?")
    for use in (store.ensure_image, store.update_image):
        with pytest.raises(ImageNotAvailable, match=f"{image.disk} was changed since it was stored") as error:
            use(paths, published, UNWATCHED)
        assert "lab images verify" in (error.value.hint or "")


def test_a_newer_build_has_to_be_asked_for(mirror: Mirror, publish: Publish, paths: Paths, disk: bytes) -> None:
    published = publish(UBUNTU)
    old = store.ensure_image(paths, published, UNWATCHED)
    newer = disk + bytes(512)
    publish(UBUNTU, content=newer, key="another")
    mirror.requests.clear()
    assert store.ensure_image(paths, published, UNWATCHED) == old
    assert mirror.requests == []
    with pytest.raises(ImageNotAvailable, match="another key"):
        store.update_image(paths, published, UNWATCHED)
    assert store.ensure_image(paths, published, UNWATCHED) == old
    publish(UBUNTU, content=newer)
    new = store.update_image(paths, published, UNWATCHED)
    assert (new.disk.read_bytes(), old.disk.read_bytes()) == (newer, disk)
    assert store.find_image(paths, published) == store.ensure_image(paths, published, UNWATCHED) == new


def test_a_disk_of_another_definition_does_not_count(publish: Publish, paths: Paths, root: Path) -> None:
    store.ensure_image(paths, publish(UBUNTU), UNWATCHED)
    file = root / "images" / "pins" / "pins.toml"
    file.write_text(file.read_text().replace('"release-20260926"', '"release-20261101"'))
    loading.load_catalog.cache_clear()  # As another process sees it.
    assert store.find_image(paths, guest(UBUNTU)) is None


def test_two_guests_with_one_disk_have_an_image_each(publish: Publish, paths: Paths, root: Path) -> None:
    text = (root / "images" / f"{UBUNTU}.toml").read_text()
    text = text.replace("builds = ", 'build = "release-20260926"\nbuilds = ')
    (root / "images" / f"{UBUNTU}-uefi.toml").write_text(text.replace('"bios"', '"uefi"'))
    bios = store.ensure_image(paths, publish(UBUNTU), UNWATCHED)
    uefi = store.ensure_image(paths, guest(f"{UBUNTU}-uefi"), UNWATCHED)
    assert uefi.folder != bios.folder
    assert (bios.firmware, uefi.firmware) == (Firmware.BIOS, Firmware.UEFI)
    assert [store.find_image(paths, guest(name)) for name in (UBUNTU, f"{UBUNTU}-uefi")] == [bios, uefi]


@pytest.mark.parametrize("name", [UBUNTU, DEBIAN])
def test_two_labs_download_a_disk_once(mirror: Mirror, publish: Publish, paths: Paths, name: str) -> None:
    labs, published = TwoLabs("downloaded"), publish(name)

    def slow(request: Request, body: bytes) -> None:
        labs.work()
        well(request, body)

    mirror.faults[path_of(published)] = [slow]
    first, second = labs.run(lambda task: store.ensure_image(paths, published, task))
    assert (first, requested(mirror).count(path_of(published))) == (second, 1)


# --- definitions ----------------------------------------------------------------------------------------


KIND, KEY, BUILDS = 'kind = "cloud"', 'key = "ubuntu-cloud.asc"', "builds = 'release-\\d{8}(\\.\\d+)?'"


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (UBUNTU, KEY, 'key = "nobody.asc"', "image.checksums.key: there is no file "),
        (UBUNTU, KEY, 'key = "../x.asc"', "image.checksums.key: "),
        (UBUNTU, 'url = "http:', 'url = "file:', "image.url: "),
        (UBUNTU, KIND, f'{KIND}\ndigest = "sha256:12"', "image.digest: "),
        (UBUNTU, KIND, f'{KIND}\ndigest = "sha256:{"0" * 64}"', "only one of `checksums` and"),
        (DEBIAN, KIND, f'{KIND}\ndigest = "sha512:{"0" * 128}"', "`build` must be given with"),
        (UBUNTU_ARM64, 'firmware = "uefi"', 'firmware = "bios"', '`firmware` must be "uefi" for a guest of'),
        (UBUNTU_ARM64, 'besides = "runtime', 'besides = "old', "old-library"),
        (DEBIAN, 'title = "', 'besides = "runtime-library"\ntitle = "', "`besides` must be given with an"),
        (UBUNTU, BUILDS, "builds = '20(26'", "image.builds: expected a regular expression: missing )"),
    ],
)
def test_a_wrong_guest_names_file_and_key(root: Path, name: str, old: str, new: str, expected: str) -> None:
    file = root / "images" / f"{name}.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UsageError) as error:
        catalog.load_catalog(root)
    assert str(error.value).startswith(f"{file}: ")
    assert expected in str(error.value)


# -- downloads from a server that fails in every way it can

PATH = "/folder/disk.img"
BODY = os.urandom(3 << 20)
HALF = 1 << 20


@pytest.fixture
def served(mirror: Mirror) -> Mirror:
    mirror.files[PATH] = BODY
    return mirror


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def ranges(mirror: Mirror) -> list[str | None]:
    return [interval for path, interval in mirror.requests if path == PATH]


REST, LAST_PART = f"bytes={HALF}-", f"bytes={2 * HALF}-"
AGAIN = download.TRIES - 1


@pytest.mark.parametrize(
    ("faults", "requested"),
    [
        ([], [None]),
        # A download that breaks off goes on where it was.
        ([breaks_off(HALF), breaks_off(HALF)], [None, REST, LAST_PART]),
        # A server that ignores ranges starts over, with and without a length.
        ([breaks_off(HALF), whole], [None, REST]),
        ([breaks_off(HALF), endless], [None, REST]),
        # One in trouble is asked again.
        *(
            ([status(code)] * (download.TRIES - 1), [None] * download.TRIES)
            for code in sorted(download.TRANSIENT)
        ),
    ],
)
def test_a_file_comes_whole_whatever_the_server_does(
    served: Mirror,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Answer],
    requested: list[str | None],
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(download, "SAY_SECONDS", 0.0)
    served.faults[PATH] = faults[:]
    download.download_file(served.url + PATH, file, task_to(messages))
    assert file.read_bytes() == BODY
    assert ranges(served) == requested
    told = [text for text in messages if text.startswith("downloading: ")]
    assert len(told) > 2 and "3" in told[-1]
    assert all("; trying again in 0 s" in text for text in messages if text not in told)
    # A whole file that was never verified is not fetched again.
    download.download_file(served.url + PATH, file, UNWATCHED)
    assert (file.read_bytes(), ranges(served)[-1]) == (BODY, f"bytes={len(BODY)}-")


def test_what_a_former_command_has_of_the_file_is_not_fetched_again(served: Mirror, file: Path) -> None:
    served.faults[PATH] = [breaks_off(HALF), *[status(503)] * AGAIN]
    with pytest.raises(ImageNotAvailable, match=f"disk.img of {served.host}: HTTP 503 Service Unavailable"):
        download.download_file(served.url + PATH, file, UNWATCHED)
    assert file.stat().st_size == HALF
    download.download_file(served.url + PATH, file, UNWATCHED)
    assert file.read_bytes() == BODY
    assert ranges(served)[-1] == REST


def test_a_file_that_became_shorter_starts_over(served: Mirror, file: Path) -> None:
    other = os.urandom(HALF // 2)

    def changes(request: Request, body: bytes) -> None:
        breaks_off(HALF)(request, body)
        served.files[PATH] = other

    served.faults[PATH] = [changes]
    download.download_file(served.url + PATH, file, UNWATCHED)
    assert file.read_bytes() == other


@pytest.mark.parametrize(
    ("code", "tries"), [(500, download.TRIES), *((code, 1) for code in (400, 401, 403, 404, 410, 501))]
)
def test_a_server_without_the_file_is_named(served: Mirror, file: Path, code: int, tries: int) -> None:
    served.faults[PATH] = [status(code)] * download.TRIES
    with pytest.raises(ImageNotAvailable, match=f"disk.img of {served.host}: HTTP {code}") as error:
        download.download_file(served.url + PATH, file, UNWATCHED)
    assert f"check that {served.url}{PATH} exists and answers" in (error.value.hint or "")
    assert "lab images import" in (error.value.hint or "")
    assert len(served.requests) == tries
    assert not file.exists()


def test_a_redirect_to_another_server_is_followed_but_not_in_a_circle(served: Mirror, file: Path) -> None:
    with serving() as other:
        other.files["/elsewhere"] = BODY
        served.faults[PATH] = [redirect(f"{other.url}/elsewhere")]
        download.download_file(served.url + PATH, file, UNWATCHED)
    assert file.read_bytes() == BODY
    served.faults[PATH] = [redirect(served.url + PATH)] * 100
    with pytest.raises(ImageNotAvailable, match="redirect"):
        download.download_file(served.url + PATH, file, UNWATCHED)


def test_a_host_that_cannot_be_reached_is_named(file: Path, mirror: Mirror) -> None:
    with serving() as gone:
        pass
    messages: list[str] = []
    with pytest.raises(ImageNotAvailable, match=f"disk.img of {gone.host}: Connection refused"):
        download.download_file(gone.url + PATH, file, task_to(messages))
    assert len(messages) == download.TRIES - 1


def test_an_interrupt_ends_a_download(served: Mirror, file: Path) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(LabError, match="interrupted"):
        download.download_file(served.url + PATH, file, Task(check=token.check))
    assert len(served.requests) == 1
    download.download_file(served.url + PATH, file, UNWATCHED)
    assert file.read_bytes() == BODY


def test_too_little_space_is_said_first(served: Mirror, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=len(BODY) - 1))
    with pytest.raises(LabError, match=f"GiB free in {file.parent}") as error:
        download.download_file(served.url + PATH, file, UNWATCHED)
    assert not isinstance(error.value, ImageNotAvailable)
    assert not file.exists()


def test_a_disk_that_fills_up_is_named_and_nothing_kept(served: Mirror, tmp_path: Path, mount: Mount) -> None:
    small_disk = mount(tmp_path / "small", f"size={HALF}")
    served.faults[PATH] = [endless]
    with pytest.raises(
        LabError, match=f"partial file was deleted: No space left on device: {small_disk}"
    ) as error:
        download.download_file(served.url + PATH, small_disk / "disk", UNWATCHED)
    assert "free some disk space" in (error.value.hint or "")
    assert list(small_disk.iterdir()) == []
    assert len(served.requests) == 1


def test_a_small_file_is_read_and_asked_for_again(served: Mirror) -> None:
    served.files["/SUMS"] = b"text\n"
    served.faults["/SUMS"] = [status(500), status(429)]
    assert download.download_text(f"{served.url}/SUMS", UNWATCHED) == b"text\n"
    assert len(served.requests) == 3
    # One as large as a disk is none.
    with pytest.raises(ImageNotAvailable, match="larger than 1048576 bytes"):
        download.download_text(served.url + PATH, UNWATCHED)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://host:port/disk", "ftp://127.0.0.1/disk"])
def test_an_address_that_is_none_is_named(url: str, file: Path) -> None:
    with pytest.raises(ImageNotAvailable) as error:
        download.download_file(url, file, UNWATCHED)
    assert f"check that {url} exists and answers" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("had", "arrived", "missing", "seconds", "expected"),
    [
        (0, 50, 200, 5.0, "downloading: 50 of 200 MiB (25 %), 10.0 MiB/s, about 15 s left"),
        (100, 50, 100, 10.0, "downloading: 150 of 200 MiB (75 %), 5.0 MiB/s, about 10 s left"),
        (0, 50, None, 5.0, "downloading: 50 MiB, 10.0 MiB/s"),
    ],
    ids=["from the start", "gone on with", "without length"],
)
def test_progress_tells_rate_and_time_left(
    had: int, arrived: int, missing: int | None, seconds: float, expected: str
) -> None:
    left = None if missing is None else missing << 20
    assert download.describe_download(had << 20, arrived << 20, left, seconds) == expected


def test_servers_that_do_not_answer_are_told_apart_from_those_that_do(served: Mirror) -> None:
    with serving() as gone:
        pass
    served.faults["/"] = [status(500)]
    urls = [f"{served.url}/a", f"{served.url}/b", f"{gone.url}/a", "http://name.invalid/c"]
    reasons = download.find_unreachable_hosts(urls)
    assert reasons.keys() == {gone.host, "name.invalid"}
    assert reasons[gone.host] == "Connection refused"
    assert [path for path, _ in served.requests] == ["/"]


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "REACH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        assert download.find_unreachable_hosts([f"http://{host}/disk"]).keys() == {host}
