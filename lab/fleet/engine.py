"""dask.distributed as the lab uses it: a scheduler that hosts join over TLS, and one client.

The scheduler and the client live in the coordinator's process and talk through memory. A part is a task of
dask's, bound to one host. Its events and its result do not come back as the task's value, which would have to
be unpickled, but as calls of plain data (`wire`).
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import dask
from distributed import CancelledError, Client, Future, Scheduler, Security, wait
from distributed.comm.core import Comm
from distributed.diagnostics.plugin import SchedulerPlugin

from lab.base.errors import LabError
from lab.fleet import logs, wire
from lab.fleet.address import Address
from lab.fleet.asked import Asked
from lab.fleet.attempt import Attempt, Host
from lab.fleet.part import Part
from lab.fleet.regular import Regular
from lab.fleet.silence import Silences
from lab.fleet.task import run_part
from lab.images.content import CONTENTS, Content

# A host that says nothing for so long is lost. It says something every second or so; a host under load may not.
LOST_SECONDS = 60.0
# And from here on it is told that it does not answer.
SILENT_SECONDS = 15.0
# How often lost hosts are looked for.
LOOK_SECONDS = 1.0

# Nothing of dask's own retries, moves or watches tasks.
SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.worker-saturation": "inf",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.limit": "60s",
    "distributed.comm.retry.count": 0,
}


class Listener(Protocol):
    """Who is told of hosts and of what they send. All of it is called in the engine's event loop."""

    def joined(self, host: Host) -> None: ...

    def left(self, name: str) -> None: ...

    def refused(self, what: str) -> None: ...

    def event(self, token: str, line: str) -> None: ...

    def chunk(self, token: str, offset: int, data: bytes) -> bool: ...

    def ended(self, token: str, end: dict[str, Any]) -> None: ...

    def failed(self, token: str, error: str) -> None: ...

    def image(self, digest: str, name: str, offset: int) -> bytes:
        """A chunk of an image for a host. Called in a thread. Raises LabError."""


@dataclass
class Silence:
    """A host that has not said anything for some seconds."""

    name: str
    seconds: float


class _Hosts(SchedulerPlugin):
    """Tells the listener of hosts that come and go."""

    name = "lab-hosts"

    def __init__(self, listener: Listener, asked: Asked) -> None:
        self.listener = listener
        self.asked = asked
        self.names: dict[str, str] = {}

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        state = scheduler.workers[worker]
        resources = {name: int(value) for name, value in state.resources.items()}
        self.names[worker] = str(state.name)
        self.listener.joined(
            Host(
                str(state.name),
                resources.get("lane", 1),
                resources.get("memory", 0),
                kvm=bool(resources.get("kvm", 0)),
                images={content.digest: content for content in _images(state.extra.get("images"))},
            )
        )

    def remove_worker(self, scheduler: Scheduler, worker: str, **_more: Any) -> None:
        if name := self.names.pop(worker, None):
            self.asked.host_has_gone(name)
            self.listener.left(name)


def _images(text: Any) -> list[Content]:
    """The images that a host says it has; none if it does not say so in the right way."""
    with suppress(ValueError):
        return CONTENTS.validate_json(text or "[]")
    return []


class _Scheduler(Scheduler):
    """dask's scheduler without its web server, which takes from other hosts what `wire` lets through."""

    def __init__(self, listener: Listener, asked: Asked, **options: Any) -> None:
        self._listener, self._asked = listener, asked
        super().__init__(extensions={}, **options)
        self.handlers |= {wire.CHUNK: self._chunk, wire.END: self._end}
        self.handlers |= {wire.IMAGE: self._image, wire.IMAGE_SENT: self._image_sent}
        self.stream_handlers[wire.EVENT] = self._event
        self.silences = Silences()
        # dask would look once in LOST_SECONDS, and so find a lost host after up to twice as long.
        self.periodic_callbacks["worker-ttl"] = Regular(self.check_worker_ttl, LOOK_SECONDS * 1000)

    async def check_worker_ttl(self) -> None:
        """Remove lost hosts. dask itself would go by the time of day, and count the time it stood still."""
        self.silences.look({address: worker.last_seen for address, worker in self.workers.items()})
        for address, seconds in list(self.silences.seconds.items()):
            if seconds > LOST_SECONDS:
                await self.remove_worker(address, stimulus_id="lab-host-is-lost")

    def start_http_server(self, *_arguments: Any, **_options: Any) -> None:
        """Start none: it would answer anybody, without TLS."""

    def handle_comm(self, comm: Comm) -> Any:
        if not comm.peer_address.startswith("inproc://"):
            comm = wire.guard(comm, self._listener.refused)
        return super().handle_comm(comm)

    def _event(self, worker: str, token: Any = None, line: Any = None, **_more: Any) -> None:
        if isinstance(token, str) and isinstance(line, str):
            self._listener.event(token, line)

    def _chunk(self, token: Any = None, offset: Any = None, data: Any = None) -> dict[str, Any]:
        sound = isinstance(token, str) and isinstance(offset, int) and isinstance(data, bytes)
        return {"wanted": sound and self._listener.chunk(token, offset, data)}

    def _end(self, token: Any = None, **end: Any) -> dict[str, Any]:
        if isinstance(token, str):
            self._listener.ended(token, end)
        return {}

    async def _image(self, digest: Any = None, name: Any = None, offset: Any = None) -> dict[str, Any]:
        if not (isinstance(digest, str) and isinstance(name, str) and isinstance(offset, int)):
            return {"error": "this names no image"}
        try:
            return {"data": await asyncio.to_thread(self._listener.image, digest, name, offset)}
        except LabError as error:
            return {"error": str(error.args[0])}

    def _image_sent(self, token: Any = None, data: Any = None, error: Any = None) -> dict[str, Any]:
        self._asked.arrived(token, data, error)
        return {}


class Engine:
    """The scheduler and its client. Everything is called in one event loop."""

    def __init__(self, listener: Listener, security: dict[str, Any]) -> None:
        wire.read_plain_messages(listener.refused)
        logs.quiet(listener.refused)
        dask.config.set(SETTINGS)
        self._listener = listener
        self._asked = Asked()
        self._futures: dict[str, Future] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._scheduler = _Scheduler(
            listener,
            self._asked,
            protocol="inproc",
            security=Security(**security),
            plugins=[_Hosts(listener, self._asked)],
            dashboard=False,
        )

    async def __aenter__(self) -> "Engine":
        await self._scheduler
        inside = self._scheduler.listeners[0].contact_address
        self._client = await Client(inside, asynchronous=True, set_as_default=False)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._futures.clear()
        await self._client.close()
        await self._scheduler.close(reason="the run is over")

    async def listen(self, address: Address) -> str:
        """Let hosts join at an address; return it with the port that it has. Raises OSError if it is taken."""
        await self._scheduler.listen(
            str(address),
            allow_offload=False,
            **self._scheduler.security.get_listen_args("scheduler"),
        )
        return str(self._scheduler.listeners[-1].contact_address)

    def submit(self, part: Part, attempt: Attempt) -> None:
        """Give a part to its host. `failed` is called if that comes to nothing."""
        future = self._client.submit(
            run_part,
            part.model_dump_json(),
            attempt.token,
            key=f"part-{part.number}-{attempt.token}",
            workers=[self._address(attempt.host)],
            resources={"lane": 1, "memory": attempt.piece.memory_mib},
            retries=0,
            pure=False,
        )
        self._futures[attempt.token] = future
        watch = asyncio.get_running_loop().create_task(self._watch(attempt.token, future))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, token: str, future: Future) -> None:
        """Tell when a part's task ended by an error; its value is never asked for."""
        with suppress(CancelledError):
            await wait([future])
            if future.status == "error":
                self._listener.failed(token, str(await future.exception()))

    def release(self, token: str) -> None:
        """Forget the task of an attempt: dask would run it again when its host is lost."""
        if future := self._futures.pop(token, None):
            future.release()

    def stop(self, attempt: Attempt) -> None:
        """Ask a host to end an attempt soon: it sends what was decided, and the attempt ends."""
        if stream := self._scheduler.stream_comms.get(self._address(attempt.host)):
            stream.send({"op": wire.STOP, "token": attempt.token})

    async def ask_image(self, host: str, digest: str, name: str, offset: int) -> bytes:
        """A chunk of an image that a host has. Raises LabError."""

        def send(token: str) -> None:
            stream = self._scheduler.stream_comms.get(self._address(host))
            if stream is None:
                raise LabError(f"{host} has gone")
            what = {"token": token, "digest": digest, "name": name, "offset": offset}
            stream.send({"op": wire.SEND_IMAGE, **what})

        return await self._asked.answer(host, send)

    def silent(self) -> list[Silence]:
        """The hosts that have not said anything for a while."""
        return [
            Silence(str(worker.name), seconds)
            for address, seconds in self._scheduler.silences.seconds.items()
            if seconds > SILENT_SECONDS and (worker := self._scheduler.workers.get(address))
        ]

    def _address(self, host: str) -> str:
        return str(self._scheduler.aliases.get(host, ""))
