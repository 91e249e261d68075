"""Dask's scheduler and client in the coordinator's process, and the run's key."""

import logging
import ssl
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import dask.config
from distributed import Client, Scheduler, Security, SpecCluster
from tornado.iostream import SSLIOStream
from tornado.tcpserver import TCPServer

from lab.base import scratch
from lab.base.errors import UsageError
from lab.fleet.inventory import LOOPBACK

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


def make_key() -> str:
    """Return a key and its certificate for one run, as one PEM text: all sides of the run share it.

    Whoever has it can run code as the user of each host of the run.
    """
    security = Security.temporary()
    return f"{security.tls_client_key}{security.tls_client_cert}"


def make_security(pem: str) -> Security:
    """Return dask's settings for the run's key: TLS 1.3, and each side shows the certificate."""
    roles = ("scheduler", "client", "worker")
    return Security(
        require_encryption=True,
        tls_min_version=ssl.TLSVersion.TLSv1_3,
        tls_ca_file=pem,
        **{f"tls_{role}_{part}": pem for role in roles for part in ("cert", "key")},
    )


@contextmanager
def start_engine(
    host: str, port: int | None, security: Security, *, hosts: int
) -> Iterator[tuple[Client, int]]:
    """A client of a scheduler that listens there, and its port; `hosts` are expected to join.

    Raises UsageError if nothing can listen there.
    """
    for name in ("distributed", "tornado", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    losses = {"allowed-failures": MOST_LOSSES * max(1, hosts) - 1}
    dask.config.update_defaults({"distributed": {"scheduler": SETTINGS | losses, "comm": COMM}})
    options = {"host": host, "port": port or 0, "protocol": "tls", "security": security}
    # dask would use one folder for all users of this host, and load modules from there.
    with scratch.make_temporary_folder() as folder, dask.config.set({"temporary-directory": str(folder)}):
        try:
            cluster = SpecCluster(scheduler={"cls": _scheduler, "options": options}, security=security)
        except RuntimeError as error:
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise UsageError(
                f"nothing can listen on {host}, port {port}: {cause}",
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
    scheduler = Scheduler(**options, dashboard=False, dashboard_address=f"{LOOPBACK}:0")
    scheduler.http_server.stop()  # Before it can answer anybody.
    return scheduler
