"""Which image each guest of a run has: one for all hosts, pinned by its digest, in the coordinator's store."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.files import bounded, plain
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.fleet.attempt import Host
from lab.images import store, transfer
from lab.images.content import Content
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.record import Status
from lab.run import absent
from lab.run.observer import Observer
from lab.run.worker import NO_IMAGE

# How long further hosts have to join after the first one, before an image is made here that none of them has.
JOIN_SECONDS = 15.0
# What is shown of a host's words, in characters.
LONGEST_WORDS = 300

# What an image was made from: its guest, the digest of all inputs, and the disk that it was prepared from.
MadeFrom = tuple[str, str, str]
# Asks a host for a chunk of an image: by the host's name, the image's digest, the file's name, the offset.
Ask = Callable[[str, str, str, int], Coroutine[Any, Any, bytes]]


@dataclass
class Pinning:
    """Finds an image for each guest of a run. All of it is called in one event loop.

    `pins` are the images that are pinned, by guest. For the guests in `unprepared` it is a distribution's disk,
    which the first host that gets cells of theirs prepares: what it has then takes the place of the disk.
    `failed` has the guests that get none: the status of their cells, and why. `changed` is called at each
    change of these. `crash` is a bug that was met.
    """

    paths: Paths
    guests: Sequence[Guest]
    observer: Observer
    offline: bool = False
    pins: dict[str, Content] = field(default_factory=dict)
    unprepared: set[str] = field(default_factory=set)
    failed: dict[str, tuple[Status, str]] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None
    crash: BaseException | None = None
    _images: dict[str, BaseImage] = field(default_factory=dict)
    _working: set[str] = field(default_factory=set)
    _told: set[str] = field(default_factory=set)
    # They share a link, and must not keep all threads of the loop.
    _taking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _ask: Ask | None = None
    _first_joined: float | None = None
    _is_stopped: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether an image is being looked for, taken from a host, or made."""
        return bool(self._working)

    def joined(self) -> None:
        """A host has joined: it may have an image."""
        self._first_joined = self._first_joined or time.monotonic()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def stop(self) -> None:
        """End what is being made or taken."""
        if self._working and not self._is_stopped:
            process.stop_all()
        self._is_stopped = True

    def begin(self, ask: Ask) -> None:
        """Begin to look for all images."""
        self._ask = ask
        for guest in self.guests:
            self._start(guest, self._pin(guest))

    def prepared(self, host: str, name: str, text: str) -> None:
        """A host has prepared the image of a guest, by its word: the run's other hosts get it from there."""
        if name not in self.unprepared or name in self._working:
            return
        guest = next(each for each in self.guests if each.name == name)
        try:
            content = Content.model_validate_json(text)
        except ValidationError:
            return
        disk = self._images[self.pins[name].digest]
        if _made_from(content) == (name, prepare_image.inputs_digest(guest, disk), disk.manifest.disk_sha256):
            self._start(guest, self._follow(guest, host, content))

    def _start(self, guest: Guest, work: Coroutine[Any, Any, None]) -> None:
        self._working.add(guest.name)
        self._tasks.append(asyncio.get_running_loop().create_task(self._until_done(guest, work)))

    async def end(self) -> None:
        """End all of it, and wait until it has ended."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pin(self, guest: Guest) -> None:
        """Find the guest's image: in the store of this host, on another host, or by making it here.

        Of a distribution's disk, it is the one that was prepared from it, if there is one.
        """
        image = await asyncio.to_thread(self._stored, guest)
        made_from = guest.name, store.inputs_digest(guest), ""
        image = image or await self._from_hosts(guest, made_from) or await self._made(guest)
        ready = await self._prepared(guest, image)
        if ready is None:
            self.unprepared.add(guest.name)
        await self._keep(guest, ready or image)

    async def _prepared(self, guest: Guest, image: BaseImage) -> BaseImage | None:
        """What lanes start from, in the store of this host or on another one; None if it is to be prepared."""
        if ready := await asyncio.to_thread(prepare_image.find, self.paths, guest, image):
            return ready
        base = image.manifest.disk_sha256
        return await self._from_hosts(guest, (guest.name, prepare_image.inputs_digest(guest, image), base))

    async def _follow(self, guest: Guest, host: str, content: Content) -> None:
        """Take a prepared image from the host that has it. If that fails, the next host prepares one, too."""
        if image := await self._try_to_take(guest, host, content):
            await self._keep(guest, image)
            self.unprepared.discard(guest.name)

    async def _keep(self, guest: Guest, image: BaseImage) -> None:
        content = await asyncio.to_thread(lambda: image.content)
        self._images[content.digest], self.pins[guest.name] = image, content

    async def _until_done(self, guest: Guest, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ImageNotAvailable as error:
            self.observer.note(f"{guest.name}: {error}")
            self.failed[guest.name] = Status.NOT_RUN, f"{NO_IMAGE}: {error.args[0]}"
        except LabError as error:
            self.failed[guest.name] = Status.ERROR, str(error)
        except Exception as error:
            self.crash = error
        finally:
            self._working.discard(guest.name)
            if guest.name in self._told:
                self._say(guest, "")
            self.changed()

    def chunk(self, digest: str, name: str, offset: int) -> bytes:
        """A chunk of a pinned image, for a host. Raises LabError."""
        if digest not in self._images:
            raise LabError("the run has no such image")
        return transfer.read_chunk(self._images[digest], name, offset)

    def _say(self, guest: Guest, text: str) -> None:
        self._told.add(guest.name)
        self.observer.lane(f"coordinator: {guest.name}", text and f"image: {text}")

    def _stored(self, guest: Guest) -> BaseImage | None:
        image = store.find(self.paths, guest)
        if image:
            store.check(image)
        return image

    # -- from a host

    async def _from_hosts(self, guest: Guest, made_from: MadeFrom) -> BaseImage | None:
        """Take the image from a host that has it; None if none has it that joined in time."""
        tried = set[tuple[str, str]]()
        while True:
            for host, content in self._offers(made_from):
                if (host, content.digest) not in tried:
                    tried.add((host, content.digest))
                    if image := await self._try_to_take(guest, host, content):
                        return image
                    break
            else:
                if not await self._wait_for_hosts(guest):
                    return None

    def _offers(self, made_from: MadeFrom) -> Iterator[tuple[str, Content]]:
        for host in list(self.hosts.values()):
            for content in host.images.values():
                if _made_from(content) == made_from:
                    yield host.name, content

    async def _wait_for_hosts(self, guest: Guest) -> bool:
        """Wait until another host has joined; False if it is too late for that."""
        news = self._news
        if self._first_joined is None:
            self._working.discard(guest.name)
            await news.wait()
            self._working.add(guest.name)
            return True
        self._say(guest, "waiting for a host that has it")
        try:
            async with asyncio.timeout(self._first_joined + JOIN_SECONDS - time.monotonic()):
                await news.wait()
        except TimeoutError:
            return False
        return True

    async def _try_to_take(self, guest: Guest, host: str, content: Content) -> BaseImage | None:
        try:
            return await self._take(guest, host, content)
        except LabError as error:
            if not self._is_stopped:
                why = bounded(plain(str(error.args[0])), LONGEST_WORDS)
                self.observer.note(f"{guest.name}: its image did not come from {host}: {why}")
            return None

    async def _take(self, guest: Guest, host: str, content: Content) -> BaseImage:
        self.observer.note(f"{guest.name}: its image comes from {host}, which has it ({content.digest[:12]})")
        loop, ask = asyncio.get_running_loop(), self._ask
        assert ask is not None

        def fetch(name: str, offset: int) -> bytes:
            self._check_stopped()
            return asyncio.run_coroutine_threadsafe(ask(host, content.digest, name, offset), loop).result()

        def receive() -> BaseImage:
            return transfer.receive(
                self.paths,
                content,
                fetch,
                lambda text: self._say_or_stop(guest, text),
                check=lambda disk: transfer.check_disk(disk, guest, is_prepared=bool(content.base)),
                origin=f"host {host}",
            )

        async with self._taking:
            return await asyncio.to_thread(receive)

    # -- made here

    async def _made(self, guest: Guest) -> BaseImage:
        """Build or download the image as a run on one host does. Raises ImageNotAvailable, LabError."""
        self._say(guest, "waiting for another image to be made")
        async with self._making:
            self.observer.note(f"{guest.name}: no host has its image; it is made here")
            return await asyncio.to_thread(self._make, guest)

    def _make(self, guest: Guest) -> BaseImage:
        self._check_stopped()
        if reason := absent.find(self.paths, [guest], offline=self.offline).reasons.get(guest.name):
            raise ImageNotAvailable(reason, hint=absent.NEXT)
        return store.ensure(
            self.paths, guest, lambda text: self._say_or_stop(guest, text), offline=self.offline
        )

    def _say_or_stop(self, guest: Guest, text: str) -> None:
        self._check_stopped()
        self._say(guest, text)

    def _check_stopped(self) -> None:
        if self._is_stopped:
            raise LabError("interrupted")


def _made_from(content: Content) -> MadeFrom:
    return content.guest, content.inputs, content.base
