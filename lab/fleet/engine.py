"""Dask's scheduler and client in the coordinator's process, their parts, and the hosts that joined."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import dask.config
from distributed import Client, Future, Scheduler, Security

from lab.base.errors import UsageError
from lab.fleet.inventory import LOOPBACK
from lab.run.backlog import Ticket

# So many hosts may be lost with a part before its cells are given up: it may be what ends them.
MOST_LOSSES = 3
# The user's own settings of dask's come before these. A host that does not answer is lost after `worker-ttl` to
# twice that. `part` is how dask calls the tasks; without their duration no host would take over another's.
SETTINGS = {
    "distributed": {
        "scheduler": {
            "allowed-failures": MOST_LOSSES - 1,
            "default-task-durations": {"part": "10m"},
            "worker-ttl": "30s",
            "active-memory-manager": {"start": False},
            "http": {"routes": []},
        },
        "admin": {"tick": {"limit": "60s"}},
        "diagnostics": {"nvml": False},
    }
}


@dataclass(eq=False)
class Piece:
    """A part that dask has. `host` runs it; `lanes` maps what its host calls its lanes to their labels."""

    number: int
    tickets: list[Ticket]
    future: Future
    host: str = ""
    lanes: dict[str, str] = field(default_factory=dict)

    @property
    def guest(self) -> str:
        """The guest of all its cells."""
        return self.tickets[0].cell.guest.name


@dataclass
class Joined:
    """A host that has joined: the address of dask's worker, and what the host offers.

    `failures`: how often in a row its lab failed. `refused`: why it gets no more parts.
    """

    address: str
    lanes: int
    memory_mib: int
    kvm: bool
    failures: int = 0
    refused: str = ""

    def __str__(self) -> str:
        lanes = f"{self.lanes} lane{'s' if self.lanes != 1 else ''}"
        return f"{lanes}, {self.memory_mib} MiB of memory, {'with' if self.kvm else 'without'} KVM"


@contextmanager
def running(host: str, port: int | None, security: Security) -> Iterator[tuple[Client, int]]:
    """A client of a scheduler that listens there, and its port. Raises UsageError if nothing can."""
    for name in ("distributed", "tornado", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    dask.config.update_defaults(SETTINGS)
    with (
        _scheduler(host, port or 0, security) as (address, found),
        Client(address, security=security, set_as_default=False) as client,
    ):
        yield client, found


@contextmanager
def _scheduler(host: str, port: int, security: Security) -> Iterator[tuple[str, int]]:
    """A scheduler in a thread of its own; its address and its port. Raises UsageError."""
    started: concurrent.futures.Future[tuple[str, int]] = concurrent.futures.Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        where = {"host": host, "port": port, "protocol": "tls", "security": security}
        made = Scheduler(**where, dashboard=False, dashboard_address=f"{LOOPBACK}:0")
        made.http_server.stop()  # Before it can answer anybody.
        async with made:
            started.set_result((made.address, made.port))
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)

    thread = threading.Thread(target=run, name="scheduler", daemon=True)
    thread.start()
    try:
        address, found = started.result()
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"nothing can listen on {host}, port {port}: {error.__cause__ or error}",
            hint="set coordinator.address to an address of this host, and coordinator.port to a free port",
        ) from error
    try:
        yield address, found
    finally:
        with suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(stop.set)
        thread.join()
