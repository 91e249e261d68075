"""Images from other hosts: what they say of them, how they arrive, and where they are stored."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from lab import catalog
from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.paths import Paths
from lab.images import choice, store, transfer
from lab.images.content import CONTENTS, DISK, Content, FileContent
from lab.images.store import BaseImage
from lab.images.transfer import DamagedImage
from tests.unit.image_examples import INITRD_BYTES, put_image

GUEST = catalog.load().guest("debian-13")
OTHER = catalog.load().guest("debian-12")
GOOD = {"guest": "debian-13", "inputs": "a" * 64, "files": {DISK: {"sha256": "b" * 64, "size": 1}}}


def say(_text: str) -> None:
    pass


@pytest.fixture
def there(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "there", tmp_path / "there")


@pytest.fixture
def here(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "here", tmp_path / "here")


def receive(to: Paths, image: BaseImage, fetch: transfer.Fetch | None = None) -> BaseImage:
    def read(name: str, offset: int) -> bytes:
        return transfer.read_chunk(image, name, offset)

    return transfer.receive(to, image.content, fetch or read, say, check=None, origin="host one")


def test_an_image_arrives_whole_and_is_the_guest_s(here: Paths, there: Paths) -> None:
    sent = put_image(there, GUEST)
    asked: list[tuple[str, int]] = []

    def fetch(name: str, offset: int) -> bytes:
        asked.append((name, offset))
        return transfer.read_chunk(sent, name, offset)

    made = receive(here, sent, fetch)
    assert made.content.digest == sent.content.digest
    assert made.manifest.source == "built for a test; from host one"
    assert [offset for name, offset in asked if name == "initrd"] == [0, 4 << 20, 8 << 20]
    assert (made.folder / "initrd").stat().st_size == INITRD_BYTES
    store.check(made)
    found = store.find(here, GUEST)
    assert found
    assert (found.folder, found.firmware) == (made.folder, None)
    # It is passed on as the same image, and says once where it came from.
    again = transfer.receive(
        Paths(here.cache / "x", here.cache / "x"),
        made.content,
        lambda name, offset: transfer.read_chunk(made, name, offset),
        say,
        check=None,
        origin="host two",
    )
    assert (again.content.digest, again.manifest.source) == (
        sent.content.digest,
        "built for a test; from host two",
    )


def test_an_image_that_is_stored_is_not_fetched(here: Paths, there: Paths) -> None:
    own = put_image(here, GUEST)

    def fetch(_name: str, _offset: int) -> bytes:
        raise AssertionError("it was fetched")

    assert receive(here, put_image(there, GUEST), fetch).folder == own.folder


def test_another_image_of_the_same_definition_is_put_beside_the_host_s_own(here: Paths, there: Paths) -> None:
    own, sent = put_image(here, GUEST), put_image(there, GUEST, kib=2048)
    receive(here, sent)
    assert store.find(here, GUEST) == own
    its = store.find(here, GUEST.from_image(sent.content.digest))
    assert its
    assert its.content.digest == sent.content.digest
    assert store.find(here, GUEST.from_image(own.content.digest)) == own


def test_a_guest_of_one_image_runs_from_no_other(here: Paths) -> None:
    put_image(here, GUEST)
    pinned = GUEST.from_image("f" * 64)
    assert store.find(here, pinned) is None
    with pytest.raises(ImageNotAvailable, match="the one image that the run uses is not in the store"):
        store.ensure(here, pinned, say)
    assert pinned.model_dump_json() == GUEST.model_dump_json()
    assert pinned.with_packages("stress-ng").only_image == "f" * 64


def test_guests_with_the_same_content_share_it(here: Paths, there: Paths) -> None:
    sent = put_image(there, GUEST)
    made = receive(here, sent)
    assert store.find(here, OTHER.from_image(sent.content.digest)) == made
    assert store.find(here, OTHER) is None


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-1] + b"x", "initrd of debian-13 arrived damaged: its sha256 is"),
        (
            lambda data: b"",
            f"initrd of debian-13 has another size than {INITRD_BYTES} bytes: 0 came at byte 8388608",
        ),
        (lambda data: data * 2, "initrd of debian-13 has another size than"),
    ],
)
def test_what_is_not_the_image_is_not_stored(
    here: Paths, there: Paths, damage: Callable[[bytes], bytes], told: str
) -> None:
    sent = put_image(there, GUEST)

    def fetch(name: str, offset: int) -> bytes:
        data = transfer.read_chunk(sent, name, offset)
        return damage(data) if offset == 8 << 20 else data

    with pytest.raises(DamagedImage, match=told):
        receive(here, sent, fetch)
    assert [each.name for each in here.images.iterdir() if each.is_dir()] == []
    receive(here, sent)


def test_without_room_nothing_is_asked_for(here: Paths, there: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = put_image(there, GUEST).content
    files = {**huge.files, "initrd": FileContent(sha256="c" * 64, size=60 << 40 >> 10)}
    content = huge.model_copy(update={"files": files})

    def fetch(_name: str, _offset: int) -> bytes:
        raise AssertionError("it was fetched")

    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2**30))
    with pytest.raises(LabError, match=r"the image of debian-13 needs 6\d+.\d GiB free"):
        transfer.receive(here, content, fetch, say, check=None, origin="host one")


def test_two_lanes_that_need_an_image_fetch_it_once(here: Paths, there: Paths) -> None:
    sent, fetched, begun = put_image(there, GUEST), list[str](), threading.Event()

    def fetch(name: str, offset: int) -> bytes:
        fetched.append(f"{name} {offset}")
        begun.set()
        return transfer.read_chunk(sent, name, offset)

    threads = [threading.Thread(target=receive, args=(here, sent, fetch)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == len(set(fetched))


def test_a_chunk_is_of_a_file_of_the_image_and_of_no_other(there: Paths) -> None:
    image = put_image(there, GUEST)
    for name, offset in [("../../secret", 0), ("manifest.json", 0), ("vmlinuz", -1), ("vmlinuz", 1 << 20)]:
        with pytest.raises(LabError, match="has no byte"):
            transfer.read_chunk(image, name, offset)


@pytest.mark.parametrize(
    "wrong",
    [
        {"guest": "../x"},
        {"guest": "debian-13\n"},
        {"inputs": "A" * 64},
        {"inputs": "a" * 64 + "\n"},
        {"files": {}},
        {"files": {"vmlinuz": {"sha256": "b" * 64, "size": 1}}},
        {"files": {DISK: {"sha256": "b" * 64, "size": -1}}},
        {"files": {DISK: {"sha256": "b" * 64, "size": 1 << 50}}},
        {"files": {DISK: {"sha256": "b" * 64, "size": "1"}}},
        {"files": {**GOOD["files"], "../vmlinuz": {"sha256": "b" * 64, "size": 1}}},  # type: ignore[dict-item]
        {"files": {**GOOD["files"], ".hidden": {"sha256": "b" * 64, "size": 1}}},  # type: ignore[dict-item]
        {"files": {f"disk.qcow2{number or ''}": {"sha256": "b" * 64, "size": 1} for number in range(17)}},
        {"source": "x" * 501},
        {"more": 1},
    ],
)
def test_what_a_host_says_of_an_image_is_checked(wrong: dict[str, Any]) -> None:
    assert CONTENTS.validate_json(json.dumps([GOOD]))
    with pytest.raises(ValidationError):
        CONTENTS.validate_json(json.dumps([{**GOOD, **wrong}]))


def test_a_host_offers_what_it_has(here: Paths) -> None:
    put_image(here, GUEST)
    published = put_image(here, OTHER)
    published.folder.rename(here.images / f"sha256-{published.manifest.disk_sha256}")
    for guest in ("cloud-1", "cloud-2"):
        choice.remember(here, guest, choice.Choice("e" * 64, published.manifest.disk_sha256))
    (here.images / "broken").mkdir()
    (here.images / "broken" / "manifest.json").write_text("{")
    offered = transfer.offered(here)
    assert sorted((each.guest, each.inputs[:1]) for each in offered) == [
        ("cloud-1", "e"),
        ("cloud-2", "e"),
        ("debian-13", store.inputs_digest(GUEST)[:1]),
    ]
    assert CONTENTS.validate_json(CONTENTS.dump_json(offered)) == offered


def test_a_disk_from_a_host_must_not_refer_to_files_of_this_one(tmp_path: Path) -> None:
    make = ["qemu-img", "create", "-q", "-f", "qcow2"]
    process.run([*make, tmp_path / "good", "1M"], timeout=60)
    transfer.check_disk(tmp_path / "good", GUEST)
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 65536)
    process.run([*make, "-b", secret, "-F", "raw", tmp_path / "bad"], timeout=60)
    with pytest.raises(DamagedImage, match="not a whole disk: it refers to another file"):
        transfer.check_disk(tmp_path / "bad", GUEST)
    (tmp_path / "text").write_text("no disk")
    with pytest.raises(DamagedImage, match=r"disk.qcow2 of debian-13: "):
        transfer.check_disk(tmp_path / "text", GUEST)


def test_a_disk_from_a_host_must_have_the_digest_that_its_guest_pins(tmp_path: Path) -> None:
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk", "1M"], timeout=60)
    guests = catalog.load().guests.values()
    cloud = next(guest for guest in guests if isinstance(guest.image, catalog.CloudImage))
    image = cloud.image.model_copy(update={"digest": f"sha512:{'0' * 128}"})
    pinned = cloud.model_copy(update={"image": image})
    with pytest.raises(DamagedImage, match=f"does not have the digest that images/{pinned.name}.toml pins"):
        transfer.check_disk(tmp_path / "disk", pinned)


def test_content_is_the_same_only_if_every_file_is(here: Paths) -> None:
    content = put_image(here, GUEST).content
    assert content.model_copy(update={"guest": "x", "source": "elsewhere"}).digest == content.digest
    for name in content.files:
        files = {**content.files, name: FileContent(sha256="0" * 64, size=1)}
        assert content.model_copy(update={"files": files}).digest != content.digest
    assert isinstance(content, Content)
