"""Which image each guest of a run gets, without a network: hosts are played."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import ImageNotAvailable, LabError
from lab.base.paths import Paths
from lab.fleet import pinning, wire
from lab.fleet.asked import Asked
from lab.fleet.attempt import Host
from lab.fleet.pinning import Pinning
from lab.images import store, transfer
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.record import Status
from lab.run.absent import Absent
from tests.unit.image_examples import put_image, put_prepared, put_published
from tests.unit.run_examples import KNOWN
from tests.unit.told import Told, run_in_a_loop

GUEST = KNOWN.guest("debian-13")
CLOUD = KNOWN.guest("ubuntu-24.04")


class Bench:
    """A coordinator's store, and hosts that have images."""

    def __init__(self, folder: Path, *, offline: bool = False) -> None:
        self.folder, self.told = folder, Told()
        self.paths = self.of("own")
        self.hosts: dict[str, Host] = {}
        self.images: dict[str, BaseImage] = {}
        self.asked: list[str] = []
        self.pinning = Pinning(self.paths, [GUEST], self.told, offline, hosts=self.hosts)

    def of(self, name: str) -> Paths:
        return Paths(self.folder / name, self.folder / name)

    def joins(self, name: str, **image: int) -> None:
        host = self.hosts[name] = Host(name, 1, 8192)
        if image:
            self._has(host, put_image(self.of(name), GUEST, **image))
        self.pinning.joined()

    def _has(self, host: Host, image: BaseImage) -> None:
        self.images[host.name] = image
        host.images[image.content.digest] = image.content

    async def ask(self, host: str, digest: str, name: str, offset: int) -> bytes:
        self.asked.append(host)
        assert self.images[host].content.digest == digest
        return transfer.read_chunk(self.images[host], name, offset)

    def run(self, play: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def both() -> None:
            async with asyncio.timeout(120):
                self.pinning.begin(self.ask)
                await play()
                while not (self.pinning.pins or self.pinning.failed or self.pinning.crash):
                    await asyncio.sleep(0.01)
                await self.pinning.end()

        run_in_a_loop(both())
        if self.pinning.crash:
            raise self.pinning.crash


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    def ensure(*_arguments: Any, **_options: Any) -> BaseImage:
        raise AssertionError("it was made")

    monkeypatch.setattr(store, "ensure", ensure)
    return Bench(tmp_path)


async def nothing() -> None:
    pass


class CloudBench(Bench):
    """The same for a guest whose image is prepared from its distribution's disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.base = put_published(self.paths, CLOUD)
        self.pinning.guests = [CLOUD]

    def prepares(self, name: str, kib: int = 512) -> str:
        """A host prepares an image; what it tells of that."""
        image = self.images[name] = put_prepared(self.of(name), CLOUD, self.base, kib=kib)
        return image.content.model_dump_json()

    def joins_with_a_prepared_one(self, name: str) -> None:
        host = self.hosts[name] = Host(name, 1, 8192)
        self.prepares(name)
        self._has(host, self.images[name])
        self.pinning.joined()

    @property
    def pin(self) -> str | None:
        found = self.pinning.pins.get(CLOUD.name)
        return found.digest if found else None


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CloudBench:
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 0.2)
    return CloudBench(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_prepared_image_of_the_coordinator_comes_first(cloud: CloudBench) -> None:
    own = put_prepared(cloud.paths, CLOUD, cloud.base)
    cloud.joins_with_a_prepared_one("one")
    cloud.run(nothing)
    assert cloud.pin == own.content.digest
    assert (cloud.pinning.unprepared, cloud.asked) == (set(), [])


def test_then_comes_that_of_a_host(cloud: CloudBench) -> None:
    cloud.joins_with_a_prepared_one("one")
    cloud.run(nothing)
    assert cloud.pin == cloud.images["one"].content.digest
    assert (cloud.pinning.unprepared, set(cloud.asked)) == (set(), {"one"})
    found = prepare_image.find(cloud.paths, CLOUD, cloud.base)
    assert found
    assert found.manifest.source == "prepared for a test; from host one"


def test_a_disk_that_nobody_has_prepared_is_prepared_by_the_first_host_that_gets_it(cloud: CloudBench) -> None:
    async def play() -> None:
        cloud.joins("one")
        await until(lambda: cloud.pin)
        assert (cloud.pin, cloud.pinning.unprepared) == (cloud.base.content.digest, {CLOUD.name})
        told = cloud.prepares("one")
        for _ in range(2):  # Of each lane.
            cloud.pinning.prepared("one", CLOUD.name, told)
        assert cloud.pinning.is_busy
        await until(lambda: not cloud.pinning.unprepared)

    cloud.run(play)
    assert cloud.pin == cloud.images["one"].content.digest
    digest = cloud.images["one"].content.digest
    assert cloud.told.notes == [f"ubuntu-24.04: its image comes from one, which has it ({digest[:12]})"]
    assert cloud.pinning.chunk(digest, "changes.json", 0) == b"{}\n"


def test_what_does_not_arrive_is_prepared_by_the_next_host(cloud: CloudBench) -> None:
    ask = cloud.ask

    async def goes(host: str, digest: str, name: str, offset: int) -> bytes:
        if host == "one":
            raise LabError("one has gone")
        return await ask(host, digest, name, offset)

    cloud.ask = goes  # type: ignore[method-assign]

    async def play() -> None:
        cloud.joins("one")
        await until(lambda: cloud.pin)
        cloud.pinning.prepared("one", CLOUD.name, cloud.prepares("one"))
        await until(lambda: not cloud.pinning.is_busy)
        assert (cloud.pin, cloud.pinning.unprepared) == (cloud.base.content.digest, {CLOUD.name})
        cloud.pinning.prepared("two", CLOUD.name, cloud.prepares("two", kib=640))
        await until(lambda: not cloud.pinning.unprepared)

    cloud.run(play)
    assert cloud.pin == cloud.images["two"].content.digest
    assert cloud.told.noted("ubuntu-24.04: its image did not come from one: one has gone")
    assert cloud.pinning.failed == {}


def test_what_is_not_prepared_from_the_run_s_disk_is_not_asked_for(cloud: CloudBench) -> None:
    async def play() -> None:
        cloud.joins("one")
        await until(lambda: cloud.pin)
        told = cloud.prepares("one")
        its = cloud.images["one"].content
        other = [{"base": "c" * 64}, {"base": ""}, {"inputs": "c" * 64}, {"guest": "debian-13"}]
        for update in other:
            cloud.pinning.prepared("one", CLOUD.name, its.model_copy(update=update).model_dump_json())
        for text in ("", "{}", told[:-5]):
            cloud.pinning.prepared("one", CLOUD.name, text)
        cloud.pinning.prepared("one", "debian-13", told)
        assert not cloud.pinning.is_busy

    cloud.run(play)
    assert (cloud.pin, cloud.asked) == (cloud.base.content.digest, [])


def test_the_coordinator_s_own_image_comes_first(bench: Bench) -> None:
    own = put_image(bench.paths, GUEST)
    bench.joins("one", kib=2048)
    bench.run(nothing)
    assert bench.pinning.pins["debian-13"].digest == own.content.digest
    assert bench.asked == []
    assert bench.pinning.chunk(own.content.digest, "vmlinuz", 0) == (own.folder / "vmlinuz").read_bytes()
    with pytest.raises(LabError, match="the run has no such image"):
        bench.pinning.chunk("0" * 64, "vmlinuz", 0)


def test_then_comes_that_of_the_first_host_that_has_one(bench: Bench) -> None:
    async def play() -> None:
        await asyncio.sleep(0.1)
        bench.joins("none")
        await asyncio.sleep(0.1)
        bench.joins("one", kib=2048)
        bench.joins("two", kib=512)

    bench.run(play)
    image = bench.images["one"].content
    assert bench.pinning.pins["debian-13"].digest == image.digest
    assert set(bench.asked) == {"one"}
    assert bench.told.notes == [f"debian-13: its image comes from one, which has it ({image.digest[:12]})"]
    found = store.find(bench.paths, GUEST)
    assert found
    assert found.content.digest == image.digest


def test_an_image_of_another_definition_is_not_the_guest_s(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 0.2)
    made: list[str] = []

    def ensure(paths: Paths, guest: Any, *_more: Any, **_options: Any) -> BaseImage:
        made.append(guest.name)
        return put_image(paths, guest)

    monkeypatch.setattr(store, "ensure", ensure)
    bench.joins("one", kib=2048)
    content = bench.images["one"].content
    bench.hosts["one"].images = {content.digest: content.model_copy(update={"inputs": "a" * 64})}
    bench.run(nothing)
    assert (made, bench.asked) == (["debian-13"], [])
    assert bench.told.noted("debian-13: no host has its image; it is made here")


def test_a_host_that_goes_in_the_middle_is_followed_by_the_next(bench: Bench) -> None:
    bench.joins("one", kib=2048)
    bench.joins("two", kib=512)
    ask = bench.ask

    async def goes(host: str, digest: str, name: str, offset: int) -> bytes:
        if host == "one" and offset:
            raise LabError("one has gone")
        return await ask(host, digest, name, offset)

    bench.ask = goes  # type: ignore[method-assign]
    bench.run(nothing)
    assert bench.pinning.pins["debian-13"].digest == bench.images["two"].content.digest
    assert bench.told.noted("debian-13: its image did not come from one: one has gone")
    assert len([each for each in bench.paths.images.iterdir() if each.is_dir()]) == 1


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ImageNotAvailable("no such build"), Status.NOT_RUN, "image not available: no such build"),
        (
            LabError("the disk filled up", hint="free some"),
            Status.ERROR,
            "the disk filled up\n  next: free some",
        ),
    ],
)
def test_an_image_that_cannot_be_made_is_told_as_on_one_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: LabError, status: Status, reason: str
) -> None:
    def ensure(*_arguments: Any, **_options: Any) -> BaseImage:
        raise error

    monkeypatch.setattr(store, "ensure", ensure)
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 0.0)
    bench.joins("one")
    bench.run(nothing)
    assert bench.pinning.failed == {"debian-13": (status, reason)}
    assert bench.pinning.pins == {}


def test_offline_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, offline=True)
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 0.0)
    bench.joins("one")
    bench.run(nothing)
    why = "it is not in the store, and --offline forbids fetching it"
    assert bench.pinning.failed == {"debian-13": (Status.NOT_RUN, f"image not available: {why}")}


def test_a_server_that_cannot_be_reached_is_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_arguments: Any, **_options: Any) -> Absent:
        return Absent({"debian-13": "example.org cannot be reached"})

    monkeypatch.setattr(pinning.absent, "find", find)  # type: ignore[attr-defined]
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 0.0)
    bench.joins("one")
    bench.run(nothing)
    assert bench.pinning.failed["debian-13"][1] == "image not available: example.org cannot be reached"


def test_without_a_host_nothing_is_made_and_an_interrupt_ends_the_wait(bench: Bench) -> None:
    async def play() -> None:
        await asyncio.sleep(0.2)
        assert not bench.pinning.is_busy
        await bench.pinning.end()
        bench.pinning.failed["debian-13"] = Status.NOT_RUN, ""

    bench.run(play)


def test_what_a_host_answers_is_a_chunk_or_a_reason() -> None:
    async def play() -> None:
        asked = Asked()

        async def answer(*arrived: Any) -> bytes:
            return await asked.answer("one", lambda token: asked.arrived(token, *arrived))

        assert await answer(b"data", None) == b"data"
        for arrived, told in [((None, "no such\x1b image"), "no such"), (("text", None), "None")]:
            with pytest.raises(LabError, match=told):
                await answer(*arrived)
        asked.arrived("0" * 32, b"late", None)
        asked.arrived(["no", "token"], b"late", None)
        with pytest.raises(LabError, match="one has gone"):
            await asked.answer("one", lambda token: asked.host_has_gone("one"))

    run_in_a_loop(play())


def test_a_host_says_of_its_images_a_text_of_bounded_length() -> None:
    call = {
        "op": "register-worker",
        "name": "one",
        "resources": {"lane": 1},
        "nanny": "n",
        "services": {"a": 1},
    }
    text = json.dumps([])
    assert wire.check({**call, "extra": {"images": text, "more": 1}})["extra"] == {"images": text}
    wrong: list[Any] = [None, [], {}, {"images": [1]}, {"images": "x" * (wire.LONGEST_IMAGES + 1)}]
    for extra in wrong:
        assert wire.check({**call, "extra": extra})["extra"] == {}
