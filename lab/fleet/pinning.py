"""Which image each guest of a run has: one for all hosts, pinned by its digest, in the coordinator's store."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.files import bounded, plain
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.fleet.handout import Host
from lab.images import store, transfer
from lab.images.content import Content
from lab.images.store import BaseImage
from lab.record import Status
from lab.run import absent
from lab.run.observer import Observer
from lab.run.worker import NO_IMAGE

# How long further hosts have to join after the first one, before an image is made here that none of them has.
JOIN_SECONDS = 15.0
# What is shown of a host's words, in characters.
LONGEST_WORDS = 300

# Asks a host for a chunk of an image: by the host's name, the image's digest, the file's name, the offset.
Ask = Callable[[str, str, str, int], Coroutine[Any, Any, bytes]]


@dataclass
class Pinning:
    """Finds an image for each guest of a run. All of it is called in one event loop.

    `pins` are the images that are pinned, by guest; `failed` has the guests that get none: the status of their
    cells, and why. `changed` is called at each change of these. `crash` is a bug that was met.
    """

    paths: Paths
    guests: Sequence[Guest]
    observer: Observer
    offline: bool = False
    pins: dict[str, Content] = field(default_factory=dict)
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
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._pin(guest, ask)) for guest in self.guests]

    async def end(self) -> None:
        """End all of it, and wait until it has ended."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pin(self, guest: Guest, ask: Ask) -> None:
        """Find the guest's image: in the store of this host, on another host, or by making it here."""
        self._working.add(guest.name)
        try:
            image = await asyncio.to_thread(self._stored, guest)
            image = image or await self._from_hosts(guest, ask) or await self._made(guest)
            content = await asyncio.to_thread(lambda: image.content)
            self._images[content.digest], self.pins[guest.name] = image, content
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

    async def _from_hosts(self, guest: Guest, ask: Ask) -> BaseImage | None:
        """Take the image from a host that has it; None if none has it that joined in time."""
        inputs, tried = store.inputs_digest(guest), set[tuple[str, str]]()
        while True:
            for host, content in self._offers(guest.name, inputs):
                if (host, content.digest) not in tried:
                    tried.add((host, content.digest))
                    try:
                        return await self._take(guest, host, content, ask)
                    except LabError as error:
                        why = bounded(plain(str(error.args[0])), LONGEST_WORDS)
                        self.observer.note(f"{guest.name}: its image did not come from {host}: {why}")
                    break
            else:
                if not await self._wait_for_hosts(guest):
                    return None

    def _offers(self, guest: str, inputs: str) -> Iterator[tuple[str, Content]]:
        for host in list(self.hosts.values()):
            for content in host.images.values():
                if (content.guest, content.inputs) == (guest, inputs):
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

    async def _take(self, guest: Guest, host: str, content: Content, ask: Ask) -> BaseImage:
        self.observer.note(f"{guest.name}: its image comes from {host}, which has it ({content.digest[:12]})")
        loop = asyncio.get_running_loop()

        def fetch(name: str, offset: int) -> bytes:
            self._check_stopped()
            return asyncio.run_coroutine_threadsafe(ask(host, content.digest, name, offset), loop).result()

        def receive() -> BaseImage:
            return transfer.receive(
                self.paths,
                content,
                fetch,
                lambda text: self._say_or_stop(guest, text),
                check=lambda disk: transfer.check_disk(disk, guest),
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
