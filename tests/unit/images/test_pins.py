"""Moving the pins of published disks, against a mirror on the loopback interface."""

import hashlib
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lab import catalog
from lab.base.activity import UNWATCHED
from lab.base.errors import ImageNotAvailable, UsageError
from lab.base.paths import Paths
from lab.catalog import Guest, find_pins_file, load_pins, loading
from lab.images import store
from lab.images.cloud import move_pin, newest_build
from tests.builders.mirror import Mirror, SigningKey, checksums_path, cloud, guest, path_of, redirect, serving
from tests.builders.processes import RunLab

Keys = dict[str, SigningKey]
UBUNTU, FEDORA, DEBIAN = "ubuntu-24.04", "fedora-44", "debian-13-cloud"
OLD, NEW = "release-20260926", "release-20261101"
BUILD = "20261101-2600"


def at(name: str, build: str) -> Guest:
    """A guest with another build."""
    return guest(name).pinned(catalog.Pin(build=build, date="2026-11-26", mirrors=[]))


@pytest.fixture
def newer(mirror: Mirror, root: Path, keys: Keys, disk: bytes) -> Mirror:
    """Ubuntu publishes a newer build, which the listing does not show last."""
    mirror.publish(at(UBUNTU, NEW), disk, keys["good"])
    mirror.list_builds(guest(UBUNTU), "release-20251212", NEW, OLD)
    return mirror


def test_the_newest_listed_build_is_pinned_with_the_date(newer: Mirror, root: Path) -> None:
    moved = move_pin(guest(UBUNTU), cloud(guest(UBUNTU)), UNWATCHED)
    assert cloud(moved).build == NEW
    written = load_pins(find_pins_file(root))
    assert (written[UBUNTU].build, written[UBUNTU].digest) == (NEW, None)
    assert written["fedora-43"].build == "43-1.6"
    assert find_pins_file(root).read_text().startswith("# Which build of each published disk")
    loading.load_catalog.cache_clear()  # As another process sees it.
    assert cloud(guest(UBUNTU)).build == NEW


def test_a_build_of_another_key_is_not_pinned(newer: Mirror, root: Path, keys: Keys, disk: bytes) -> None:
    before = find_pins_file(root).read_text()
    newer.publish(at(UBUNTU, NEW), disk, keys["another"])
    newer.list_builds(guest(UBUNTU), NEW, OLD)
    with pytest.raises(ImageNotAvailable, match="signed by another key"):
        move_pin(guest(UBUNTU), cloud(guest(UBUNTU)), UNWATCHED)
    assert find_pins_file(root).read_text() == before


def test_an_archived_release_works(mirror: Mirror, root: Path, keys: Keys, disk: bytes, paths: Paths) -> None:
    ended = guest(FEDORA)
    archived = cloud(ended).archived
    assert archived is not None
    # Nothing is left at its first address.
    mirror.publish(ended.model_copy(update={"image": archived}), disk, keys["good"])
    assert "/pub/archive/fedora/linux/releases/44/" in str(archived.address)
    moved = move_pin(ended, cloud(ended), UNWATCHED)
    assert cloud(moved).build == cloud(ended).build
    image = store.update_image(paths, moved, UNWATCHED)
    assert image.manifest.source == archived.address
    assert image.manifest.disk_sha256 == hashlib.sha256(disk).hexdigest()


def test_the_newest_build_goes_by_numbers_and_where_there_is_none_the_address_is_named(
    mirror: Mirror, root: Path
) -> None:
    mirror.list_builds(guest(FEDORA), "44-1.9", "44-1.10", "44-1.7")
    assert newest_build(cloud(guest(FEDORA)).url, r"44-[\d.]+", UNWATCHED) == "44-1.10"
    mirror.list_builds(guest(FEDORA), "44-1.9", f"44-1.{'1' * 5_000}", "44-1.0010")
    assert len(newest_build(cloud(guest(FEDORA)).url, r"44-[\d.]+", UNWATCHED)) > 5_000
    mirror.files.clear()
    mirror.list_builds(guest(UBUNTU))
    for name, problem in (UBUNTU, "/releases/noble/ lists no build"), (FEDORA, "/pub/archive/"):
        with pytest.raises(ImageNotAvailable) as error:
            move_pin(guest(name), cloud(guest(name)), UNWATCHED)
        assert problem in str(error.value)


def test_a_pin_that_did_not_move_keeps_its_date(mirror: Mirror, root: Path, keys: Keys, disk: bytes) -> None:
    mirror.publish(guest(UBUNTU), disk, keys["good"])
    before = find_pins_file(root).read_text().replace("2026-11-26", "2026-01-02")
    find_pins_file(root).write_text(before)
    move_pin(guest(UBUNTU), cloud(guest(UBUNTU)), UNWATCHED)
    assert find_pins_file(root).read_text() == before


@pytest.fixture
def other(root: Path, mirror: Mirror) -> Iterator[Mirror]:
    """A second mirror of Debian's disks."""
    with serving() as served:
        file = root / "images" / f"{DEBIAN}.toml"
        mirrors = f'mirrors = ["{served.url}/second/{{build}}"]'
        lines = [mirrors if line.startswith("mirrors") else line for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines))
        loading.load_catalog.cache_clear()
        yield served


def serve_sums(mirror: Mirror, other: Mirror, first: str, second: str) -> None:
    name = f"debian-13-genericcloud-amd64-{BUILD}.qcow2"
    mirror.list_builds(guest(DEBIAN), "20260714-2500", BUILD)
    folder = "/images/cloud/trixie/" + BUILD
    mirror.files[f"{folder}/SHA512SUMS"] = f"{first}  {name}\n{'1' * 128}  another.qcow2\n".encode()
    other.files[f"/second/{BUILD}/SHA512SUMS"] = f"{second}  {name}\n".encode()


def test_two_mirrors_pin_a_digest(mirror: Mirror, other: Mirror, root: Path, paths: Paths, disk: bytes) -> None:
    digest = hashlib.sha512(disk).hexdigest()
    serve_sums(mirror, other, digest, digest)
    moved = move_pin(guest(DEBIAN), cloud(guest(DEBIAN)), UNWATCHED)
    pin = tomllib.loads(find_pins_file(root).read_text())[DEBIAN]
    assert (pin["build"], pin["digest"]) == (BUILD, f"sha512:{digest}")
    assert pin["mirrors"] == [mirror.host, other.host]
    mirror.files[path_of(moved)] = disk
    assert store.ensure_image(paths, moved, UNWATCHED).disk.read_bytes() == disk


@pytest.mark.parametrize(
    ("name", "build", "file"),
    [
        ("rocky-10", "10.3-20261101.0", "Rocky-10-GenericCloud-Base-{build}.x86_64.qcow2.CHECKSUM"),
        ("centos-stream-10", "20261101.0", "CentOS-Stream-GenericCloud-10-{build}.x86_64.qcow2.SHA256SUM"),
        ("arch", "20261101.604814", "Arch-Linux-x86_64-cloudimg-{build}.qcow2.SHA256"),
    ],
)
@pytest.mark.parametrize("line", ["{digest}  {disk}\n", "SHA256 ({disk}) = {digest}\n"])
def test_the_checksum_of_one_disk_is_pinned_in_either_form(
    mirror: Mirror, root: Path, name: str, build: str, file: str, line: str
) -> None:
    address = urlsplit(cloud(at(name, build)).address or "").path
    folder, _, disk = address.rpartition("/")
    mirror.list_builds(guest(name), build)
    text = "# 5 bytes\n" + line.format(digest="a" * 64, disk=disk)
    mirror.files[f"{folder}/{file.format(build=build)}"] = text.encode()
    move_pin(guest(name), cloud(guest(name)), UNWATCHED)
    assert load_pins(find_pins_file(root))[name].digest == f"sha256:{'a' * 64}"


@pytest.mark.parametrize("fault", ["disagrees", "lacks it", "sends it without encryption"])
def test_what_mirrors_differ_in_is_not_pinned(mirror: Mirror, other: Mirror, root: Path, fault: str) -> None:
    serve_sums(mirror, other, "a" * 128, "b" * 128 if fault == "disagrees" else "a" * 128)
    path = f"/second/{BUILD}/SHA512SUMS"
    problems = {
        "disagrees": f"do not have the same digest.*SHA512SUMS: sha512:a.*{other.url}{path}: sha512:b",
        "lacks it": "SHA512SUMS of .*: HTTP 404",
        "sends it without encryption": "localhost sent it without encryption",
    }
    if fault == "lacks it":
        other.files.clear()
    if fault == "sends it without encryption":
        other.faults[path] = [redirect(f"http://localhost:{other.host.rpartition(':')[2]}{path}")]
    with pytest.raises(ImageNotAvailable, match=problems[fault]):
        move_pin(guest(DEBIAN), cloud(guest(DEBIAN)), UNWATCHED)
    assert DEBIAN not in load_pins(find_pins_file(root))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[ubuntu-99]\nbuild = "1"\ndate = "2026-11-26"\n', "no guest is called"),
        ('[debian-13]\nbuild = "1"\ndate = "2026-11-26"\n', "debian-13: its image is built locally"),
        ('["ubuntu-24.04"]\nbuild = "../../etc"\ndate = "2026-11-26"\n', "build: String should match"),
        ('["ubuntu-24.04"]\nbuild = "1"\n', "date: Field required"),
    ],
)
def test_a_wrong_pin_is_named(mirror: Mirror, root: Path, text: str, told: str) -> None:
    find_pins_file(root).write_text(text)
    loading.load_catalog.cache_clear()
    with pytest.raises(UsageError, match=told):
        catalog.load_catalog(root)


def test_pull_update_pins_and_says_so(newer: Mirror, root: Path, home: Path, run_lab: RunLab) -> None:
    lines = run_lab(0, "images", "pull", "--update", UBUNTU).out.splitlines()
    assert lines[0] == f"{UBUNTU}: pinned {NEW}; review {find_pins_file(root)}"
    assert lines[1].startswith(f"{UBUNTU}: sha256 ")


def test_pull_all_names_servers_that_are_gone(mirror: Mirror, root: Path, home: Path, run_lab: RunLab) -> None:
    with serving() as gone:
        pass
    for file in (root / "images").glob("*.toml"):
        file.write_text(file.read_text().replace(mirror.url, gone.url))
    loading.load_catalog.cache_clear()
    told = run_lab(3, "images", "pull").err
    for name in load_pins(find_pins_file(root)):
        assert f"lab: {name}: {gone.host} cannot be reached: Connection refused\n  next: " in told
    assert "with --offline no server is asked" in told


# -- `lab images pins`


@pytest.fixture
def pins(root: Path) -> Path:
    """The file of pins with two guests: one whose list is signed, and one whose server lists no builds."""
    file = find_pins_file(root)
    by_hand = '[amazonlinux-2023]\nbuild = "2023.12.20260909.0"  # by hand\ndate = "2026-11-29"\n'
    ours = f'["{UBUNTU}"]\n# Why this one.\nbuild = "{OLD}" # ours\ndate = "2026-11-26"\n'
    file.write_text(f"# A line of ours.\n\n{ours}\n{by_hand}")
    loading.load_catalog.cache_clear()
    return file


def test_pins_are_listed_and_none_is_changed(pins: Path, mirror: Mirror, run_lab: RunLab) -> None:
    before = pins.read_text()
    lines = [line.split() for line in run_lab(0, "images", "pins").out.splitlines()]
    rows = [[UBUNTU, OLD, "2026-11-26"], ["amazonlinux-2023", "2023.12.20260909.0", "2026-11-29"]]
    assert lines == [["guest", "build", "date"], *rows]
    assert (pins.read_text(), mirror.requests) == (before, [])


def test_renewed_pins_differ_from_the_old_ones_in_their_lines_alone(
    pins: Path, newer: Mirror, run_lab: RunLab
) -> None:
    before = pins.read_text().splitlines()
    printed = run_lab(1, "images", "pins", "--renew")
    assert f"{UBUNTU}: {OLD} -> {NEW}\n" in printed.out
    assert f"amazonlinux-2023: its server lists no builds; change its pin in {pins} by hand\n" in printed.out
    assert f"review and commit {pins}\n" in printed.out
    old, new = (
        [line for line in lines if line not in other]
        for lines, other in ((before, pins.read_text().splitlines()), (pins.read_text().splitlines(), before))
    )
    assert old == [f'build = "{OLD}" # ours', 'date = "2026-11-26"']
    assert new == [f'build = "{NEW}" # ours', f'date = "{datetime.now(UTC):%Y-%m-%d}"']
    # A second time there is nothing to change.
    loading.load_catalog.cache_clear()
    after = pins.read_text()
    assert "review" not in run_lab(0, "images", "pins", "--renew").out
    assert pins.read_text() == after


def test_an_older_build_is_pinned_with_a_warning(
    pins: Path, mirror: Mirror, keys: Keys, disk: bytes, run_lab: RunLab
) -> None:
    mirror.publish(at(UBUNTU, "release-20251212"), disk, keys["good"])
    printed = run_lab(1, "images", "pins", "--renew", UBUNTU)
    assert f"{UBUNTU}: {OLD} -> release-20251212, which is OLDER: was the other one withdrawn?\n" in printed.out


@pytest.mark.parametrize("fault", ["another key", "no signature", "no list", "no server"])
def test_a_list_that_cannot_be_believed_leaves_its_pin_and_the_others_are_renewed(
    root: Path, newer: Mirror, keys: Keys, disk: bytes, run_lab: RunLab, fault: str
) -> None:
    newer.publish(at(FEDORA, "44-1.9"), disk, keys["good"])
    told = {
        "another key": f"lab: {UBUNTU}: the signature of SHA256SUMS of .* is not valid: it was signed by",
        "no signature": f"lab: {UBUNTU}: SHA256SUMS.gpg of .*: HTTP 404 Not Found\n  next: ",
        "no list": f"lab: {UBUNTU}: .*/ lists no build\n  next: ",
        "no server": f"lab: {UBUNTU}: 127.0.0.1:.* cannot be reached: Connection refused\n  next: run the same",
    }
    new = at(UBUNTU, NEW)
    match fault:
        case "another key":
            newer.publish(new, disk, keys["another"])
        case "no signature":
            del newer.files[f"{checksums_path(new)}.gpg"]
        case "no list":
            newer.list_builds(guest(UBUNTU))
        case "no server":
            with serving() as gone:
                pass
            file = root / "images" / f"{UBUNTU}.toml"
            file.write_text(file.read_text().replace(newer.url, gone.url))
            loading.load_catalog.cache_clear()
    printed = run_lab(3, "images", "pins", "--renew", UBUNTU, FEDORA)
    assert re.search(told[fault], printed.err)
    assert f"{FEDORA}: 44-1.7 -> 44-1.9\n" in printed.out
    pinned = load_pins(find_pins_file(root))
    assert (pinned[UBUNTU].build, pinned[FEDORA].build) == (OLD, "44-1.9")


def test_a_guest_without_a_published_disk_has_no_pin(root: Path, mirror: Mirror, run_lab: RunLab) -> None:
    for name, told in (
        ("debian-13", "the image of debian-13 is built locally"),
        ("debain", "no guest is called"),
    ):
        assert told in run_lab(2, "images", "pins", "--renew", name).err
    assert mirror.requests == []


def test_without_a_pin_nothing_is_renewed(pins: Path, mirror: Mirror, run_lab: RunLab) -> None:
    pins.write_text("# None yet.\n")
    loading.load_catalog.cache_clear()
    assert run_lab(0, "images", "pins", "--renew") == ""
    assert (pins.read_text(), mirror.requests) == ("# None yet.\n", [])
