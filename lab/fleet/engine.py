"""Dask's scheduler and client in the coordinator's process, the run's key, and what dask has: parts, hosts."""

import logging
import ssl
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dask.config
from distributed import Client, Future, Scheduler, Security, SpecCluster
from pydantic import ValidationError
from tornado.iostream import SSLIOStream
from tornado.tcpserver import TCPServer

from lab.base import scratch
from lab.base.errors import UsageError, one_line
from lab.base.files import LONGEST_NAME, bounded, plain
from lab.catalog import Guest
from lab.fleet.inventory import LOOPBACK
from lab.fleet.messages import HostOffer
from lab.images.store import BaseImage
from lab.machine.budget import Memory
from lab.run.backlog import Ticket

# A part may be lost so often with each host before its cells are given up: it may be what ends them. If the
# coordinator's own link is cut, dask loses all hosts at once, and passes the part from one to the next.
MOST_LOSSES = 3
# The user's own settings of dask's come before these. A host that does not answer is lost after `worker-ttl` to
# twice that. `part` is how dask calls the tasks; without their duration no host would take over another's.
SETTINGS = {"default-task-durations": {"part": "10m"}, "worker-ttl": "30s"}
# Results of other hosts wait while dask tries to reach one that has gone.
COMM = {"timeouts": {"connect": "10s"}}


# So many connections may be without the run's key at a time: each takes a descriptor, and nothing else ends one
# that is silent. With one more the oldest is closed. A handshake takes milliseconds.
MOST_STRANGERS = 64


@dataclass(eq=False)
class Piece:
    """A part that dask has, with its image. `lanes` maps what its `host` calls its lanes to their labels.

    `only` are the addresses of the hosts that may run it; empty means all. `hosts` are those that began it.
    `fault` is why it was taken from its host.
    """

    number: int
    tickets: list[Ticket]
    image: BaseImage
    future: Future
    only: frozenset[str] = frozenset()
    host: str = ""
    hosts: set[str] = field(default_factory=set)
    lanes: dict[str, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def guest(self) -> str:
        """The guest of all its cells."""
        return self.tickets[0].cell.guest.name


@dataclass
class Joined:
    """A host that has joined: the address of dask's worker, what it offers, its failures in a row.

    `fault` says what is wrong with its name or its offer.
    """

    address: str
    name: str
    lanes: int = 0
    memory_mib: int = 0
    architectures: frozenset[str] = frozenset()
    failures: int = 0
    fault: str = ""

    @classmethod
    def of(cls, address: str, worker: Any) -> "Joined":
        """The host of a worker, from what dask knows about that."""
        try:
            offer = HostOffer.model_validate(worker)
        except ValidationError as error:
            return cls(address, plain(bounded(address, LONGEST_NAME)), fault=one_line(error))
        amounts = {name: int(amount) for name, amount in offer.resources.items()}
        others = frozenset(name for name, amount in amounts.items() if amount)
        return cls(address, offer.name, amounts.get("lane", 0), amounts.get("memory", 0), others)

    def suits(self, guest: Guest) -> bool:
        """Whether it can run lanes of a guest."""
        is_large = self.memory_mib >= Memory.need_mib(guest.memory_mib)
        return is_large and bool(self.lanes) and guest.arch in self.architectures

    def __str__(self) -> str:
        lanes = f"{self.lanes} lane{'s' if self.lanes != 1 else ''}"
        return f"{lanes}, {self.memory_mib} MiB of memory"


def new_key() -> str:
    """Return a key and its certificate for one run, as one PEM text: all sides of the run share it.

    Whoever has it can run code as the user of each host of the run.
    """
    made = Security.temporary()
    return f"{made.tls_client_key}{made.tls_client_cert}"


def security(pem: str) -> Security:
    """Return dask's settings for the run's key: TLS 1.3, and each side shows the certificate."""
    roles = ("scheduler", "client", "worker")
    return Security(
        require_encryption=True,
        tls_min_version=ssl.TLSVersion.TLSv1_3,
        tls_ca_file=pem,
        **{f"tls_{role}_{part}": pem for role in roles for part in ("cert", "key")},
    )


@contextmanager
def running(host: str, port: int | None, security: Security, *, hosts: int) -> Iterator[tuple[Client, int]]:
    """A client of a scheduler that listens there, and its port; `hosts` are expected to join.

    Raises UsageError if nothing can listen there.
    """
    for name in ("distributed", "tornado", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    losses = {"allowed-failures": MOST_LOSSES * max(1, hosts) - 1}
    dask.config.update_defaults({"distributed": {"scheduler": SETTINGS | losses, "comm": COMM}})
    where = {"host": host, "port": port or 0, "protocol": "tls", "security": security}
    # dask would use one folder for all users of this host, and load modules from there.
    with scratch.temporary() as folder, dask.config.set({"temporary-directory": str(folder)}):
        try:
            cluster = SpecCluster(scheduler={"cls": _scheduler, "options": where}, security=security)
        except RuntimeError as error:
            why: BaseException = error
            while why.__cause__:
                why = why.__cause__
            raise UsageError(
                f"nothing can listen on {host}, port {port}: {why}",
                hint="set coordinator.address to an address of this host, and coordinator.port to a free port",
            ) from error
        limit_strangers(cluster.scheduler.listener.tcp_server)
        address = cluster.scheduler_address
        with cluster, Client(address, security=security, set_as_default=False) as client:
            yield client, int(address.rpartition(":")[2])


def limit_strangers(server: TCPServer) -> None:
    """Close the oldest connection without the run's key when there are more than MOST_STRANGERS."""
    serve, strangers = server.handle_stream, dict[SSLIOStream, None]()

    async def wait_for_key(stream: SSLIOStream, address: tuple[Any, ...]) -> None:
        if stream.closed():
            return
        try:
            await stream.wait_for_handshake()
        except OSError:  # Without the key, or closed.
            return
        finally:
            strangers.pop(stream, None)
        if answer := serve(stream, address):
            await answer

    def handle(stream: SSLIOStream, address: tuple[Any, ...]) -> Awaitable[None]:
        strangers[stream] = None
        if len(strangers) > MOST_STRANGERS:
            oldest = next(iter(strangers))
            del strangers[oldest]
            oldest.close()
        return wait_for_key(stream, address)

    server.handle_stream = handle  # type: ignore[assignment,method-assign]


def _scheduler(**options: Any) -> Scheduler:
    made = Scheduler(**options, dashboard=False, dashboard_address=f"{LOOPBACK}:0")
    made.http_server.stop()  # Before it can answer anybody.
    return made
