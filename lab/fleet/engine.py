"""Dask's scheduler and client in the coordinator's process, the run's key, and what dask has: parts, hosts."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dask.config
from distributed import Client, Future, Scheduler, Security, SpecCluster

from lab.base.errors import UsageError
from lab.fleet.inventory import LOOPBACK
from lab.images.store import BaseImage
from lab.run.backlog import Ticket

# A part may be lost so often with each host before its cells are given up: it may be what ends them. If the
# coordinator's own link is cut, dask loses all hosts at once, and passes the part from one to the next.
MOST_LOSSES = 3
# The user's own settings of dask's come before these. A host that does not answer is lost after `worker-ttl` to
# twice that. `part` is how dask calls the tasks; without their duration no host would take over another's.
SETTINGS = {"default-task-durations": {"part": "10m"}, "worker-ttl": "30s"}


@dataclass(eq=False)
class Piece:
    """A part that dask has, with its image. `lanes` maps what its `host` calls its lanes to their labels."""

    number: int
    tickets: list[Ticket]
    image: BaseImage
    future: Future
    host: str = ""
    lanes: dict[str, str] = field(default_factory=dict)

    @property
    def guest(self) -> str:
        """The guest of all its cells."""
        return self.tickets[0].cell.guest.name


@dataclass
class Joined:
    """A host that has joined: the address of dask's worker, what it offers, its failures in a row."""

    address: str
    lanes: int
    memory_mib: int
    failures: int = 0

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
    dask.config.update_defaults({"distributed": {"scheduler": SETTINGS | losses}})
    where = {"host": host, "port": port or 0, "protocol": "tls", "security": security}
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
    address = cluster.scheduler_address
    with cluster, Client(address, security=security, set_as_default=False) as client:
        yield client, int(address.rpartition(":")[2])


def _scheduler(**options: Any) -> Scheduler:
    made = Scheduler(**options, dashboard=False, dashboard_address=f"{LOOPBACK}:0")
    made.http_server.stop()  # Before it can answer anybody.
    return made
