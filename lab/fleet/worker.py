"""A host that runs parts for coordinators: it joins one, serves until that has gone, and waits for the next."""

import asyncio
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Security
from distributed import Worker as DaskWorker

from lab.base import scratch
from lab.fleet import greeting, logs
from lab.fleet.address import Address
from lab.fleet.greeting import NoAnswer
from lab.fleet.host_images import HostImages
from lab.fleet.regular import Regular
from lab.fleet.task import Children

# How often a coordinator is looked for.
LOOK_SECONDS = 2.0
# How long it may take to join one that is there.
JOIN_SECONDS = 60.0
SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.limit": "60s",
}


@dataclass(frozen=True)
class Offer:
    """What a host offers. `memory_mib` is for all lanes together."""

    name: str
    lanes: int
    memory_mib: int
    kvm: bool


class _Worker(DaskWorker):
    """dask's worker without its web server. It tells the images of its host when it joins."""

    def __init__(self, *arguments: Any, images: HostImages, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._images = images
        beat = self.periodic_callbacks["heartbeat"]
        self.periodic_callbacks["heartbeat"] = Regular(self.heartbeat, beat.callback_time)

    async def get_startup_information(self) -> dict[str, str]:
        return {"images": await asyncio.to_thread(self._images.offer)}

    def start_http_server(self, *_arguments: Any, **_options: Any) -> None:
        """Start none: it would answer anybody, without TLS."""


async def serve(
    address: Address, security: dict[str, Any], offer: Offer, children: Children, say: Callable[[str], None]
) -> None:
    """Serve coordinators at an address, one after another, until this process gets SIGINT or SIGTERM.

    Raises UsageError if a coordinator is there and refuses this host, or is none that this host trusts.
    """
    logs.quiet()
    ending = _until_ended()
    dask.config.set(SETTINGS)
    context = Security(**security).get_connection_args("worker")["ssl_context"]
    said = ""
    while not ending.is_set():
        try:
            await greeting.greet(address, context)
            await _serve_one(address, security, offer, children, say, ending)
            said = ""
        except NoAnswer as error:
            # Once, and not at each look.
            if str(error) != said:
                said = str(error)
                say(f"no coordinator at {address} that takes this host ({said}); waiting for one")
        await _wait(ending, LOOK_SECONDS)


async def _serve_one(
    address: Address,
    security: dict[str, Any],
    offer: Offer,
    children: Children,
    say: Callable[[str], None],
    ending: asyncio.Event,
) -> None:
    """Join a coordinator, and serve it until it has gone or this process is to end. Raises NoAnswer."""
    with scratch.temporary() as folder:
        worker = _Worker(
            str(address),
            images=children.images,
            name=offer.name,
            nthreads=offer.lanes,
            resources={"lane": offer.lanes, "memory": offer.memory_mib, "kvm": int(offer.kvm)},
            # Nobody ever connects to a worker. An address of its own keeps two hosts apart.
            host=f"tls://{_own_loopback()}",
            security=Security(**security),
            local_directory=str(folder),
            plugins=(children,),
            extensions={},
            memory_limit=0,
            death_timeout=JOIN_SECONDS,
        )
        ended = asyncio.ensure_future(ending.wait())
        try:
            await _first_of(asyncio.ensure_future(worker.start()), ended)
            if not ended.done():
                say(f"joined the coordinator at {address} as {offer.name}")
                await _first_of(asyncio.ensure_future(worker.finished()), ended)
            if not ended.done():
                say(f"the coordinator at {address} has gone")
        except (OSError, RuntimeError, TimeoutError) as error:
            raise NoAnswer(_reason(error)) from error
        finally:
            ended.cancel()
            await worker.close(reason="the host ends")


async def _first_of(step: "asyncio.Future[Any]", ended: "asyncio.Future[Any]") -> None:
    """Wait for a step, but not once this process is to end. Raises what the step raises."""
    await asyncio.wait([step, ended], return_when=asyncio.FIRST_COMPLETED)
    if step.done():
        step.result()
    else:
        step.cancel()


def _reason(error: BaseException) -> str:
    """The last cause of an error of dask's, in one line."""
    while error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _own_loopback() -> str:
    """An address in 127.0.0.0/8, where only this host can connect; its coordinator knows the host by it."""
    middle = secrets.randbelow(255), secrets.randbelow(256)
    return f"127.{middle[0] + 1}.{middle[1]}.{secrets.randbelow(254) + 1}"


def _until_ended() -> asyncio.Event:
    """An event that the first SIGINT or SIGTERM sets; the second one ends this process at once."""
    ending = asyncio.Event()

    def end() -> None:
        if ending.is_set():
            os._exit(130)
        ending.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    return ending


async def _wait(ending: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(ending.wait(), seconds)
