"""A host that runs parts of other hosts' runs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from filelock import FileLock, Timeout

from lab.base.errors import UsageError
from lab.base.files import is_locked
from lab.catalog import NAME
from lab.cli import common
from lab.fleet import certificates, tether, unit
from lab.fleet.address import Address
from lab.fleet.extra import needs_dask
from lab.machine import acceleration
from lab.machine.budget import RESERVE_MIB, available_mib
from lab.machine.connection import connection

# How long another worker may take to end: one whose coordinator has gone takes its guests down first.
OTHER_SECONDS = 60.0


@click.command("worker")
@click.argument("address")
@click.option(
    "--lanes",
    type=click.IntRange(1, 64),
    help="Run at most this many machines at once. Default: one per CPU.",
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="MIB",
    help="Use at most this much memory for all machines together. Default: what the host has free now.",
)
@click.option("--name", metavar="NAME", help="Call this host so in runs. Default: as its certificate does.")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use this certificate. Default: the one of `lab hosts install`.",
)
@click.option(
    "--end-with-stdin",
    is_flag=True,
    help="End when standard input closes, as it does when the SSH connection goes that started this.",
)
@click.option("--unit", "only_unit", is_flag=True, help="Print a systemd unit that runs this command, and end.")
@click.pass_obj
def worker_command(
    lab: common.Lab,
    address: str,
    lanes: int | None,
    memory: int | None,
    name: str | None,
    certificate: Path | None,
    end_with_stdin: bool,
    only_unit: bool,
) -> int:
    """Run parts for the coordinator at ADDRESS, for example tls://127.0.0.1:8786.

    A coordinator is a `lab matrix --hosts`. When it has gone, this host waits for the next one, until it gets
    Ctrl-C or SIGTERM. Its coordinator may run any code as the user of this command.
    """
    where = Address.parse(address, "ADDRESS")
    if only_unit:
        options: dict[str, object] = {"--lanes": lanes, "--memory": memory, "--name": name}
        options["--certificate"] = certificate and certificate.absolute()
        given = [str(word) for option in options.items() if option[1] is not None for word in option]
        click.echo(unit.text(_program(), ["worker", str(where), *given]), nl=False)
        return 0
    with needs_dask("lab worker"):
        import asyncio

        from lab.fleet.host_images import HostImages
        from lab.fleet.task import Children, lab_child
        from lab.fleet.worker import Offer, serve
    bundle = certificates.load_worker(lab.paths, certificate)
    with _only_worker(lab):
        mib = memory or max(0, available_mib() - RESERVE_MIB)
        count = lanes or os.cpu_count() or 1
        offer = Offer(_checked(name or bundle.name), count, mib, kvm=_has_kvm(lab))
        lab.sweep()
        own = ["--connect", lab.uri, "--states-gib", str(lab.paths.states_gib)]
        children = Children(lab_child(own), offer.name, HostImages(lab.paths), common.say)
        if end_with_stdin:
            tether.end_with_stdin()
        asyncio.run(serve(where, bundle.security(), offer, children, common.say))
    common.say("ended; nothing was left running")
    return 0


@contextmanager
def _only_worker(lab: common.Lab) -> Iterator[None]:
    """Two workers would offer the same memory twice. Raises UsageError if another one goes on."""
    lab.paths.make(lab.paths.state)
    lock = FileLock(lab.paths.state / "worker.lock")
    if is_locked(Path(lock.lock_file)):
        common.say("waiting for another worker of this host to end")
    try:
        lock.acquire(timeout=OTHER_SECONDS)
    except Timeout as error:
        raise UsageError(
            f"another worker of this host runs already: it holds {lock.lock_file}",
            hint="end it, or give this one a LAB_HOME of its own; lslocks shows its process",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _has_kvm(lab: common.Lab) -> bool:
    """Whether guests run under KVM here; while nobody has found out, whether `/dev/kvm` can be opened."""
    with connection(lab.uri) as opened:
        how = acceleration.cached(opened, lab.paths)
    return how.kvm if how else os.access("/dev/kvm", os.R_OK | os.W_OK)


def _program() -> list[str]:
    """The words that run this lab again."""
    own = Path(sys.argv[0])
    return [sys.executable, "-m", "lab"] if own.name == "__main__.py" else [str(own)]


def _checked(name: str) -> str:
    """The name of this host. Raises UsageError for one that cannot stand in a run."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name}: expected a-z, 0-9, . and -", hint="for example --name lab-1")
    return name
