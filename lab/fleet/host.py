"""What a host of a run does: it runs dask's own worker until its login ends.

`python -m lab.fleet.host` does that. Any worker of a run, however it was started, loads this module with
`--preload`.
"""

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from lab.base import scratch
from lab.base.architecture import ARCHITECTURES
from lab.base.errors import LabError, UsageError, format_error
from lab.base.paths import Paths
from lab.fleet import engine, part
from lab.fleet.inventory import LOOPBACK
from lab.fleet.messages import LANE, MEMORY, WorkerSettings, WorkerStart
from lab.lane import upkeep
from lab.machine import domain, leftovers
from lab.machine.budget import RESERVE_MIB, measure_available_mib
from lab.machine.connection import get_default_uri, hold_connection

# Where dask wants the run's key.
KEYS = ("ca-file", "worker.cert", "worker.key")
# How long dask's worker looks for its scheduler.
JOIN_SECONDS = 300
# The other end of the login sends something every few seconds. If it is silent for so long, the link is cut.
SILENT_SECONDS = 180.0
# How long a worker has to end by itself.
LEAVE_SECONDS = 60.0


def run_worker(settings: WorkerSettings) -> None:
    """Remove what dead labs left here, and run dask's own worker with all that this host offers to the run.

    No file keeps the run's key, which `settings` have. Raises LabError.
    """
    import dask.config
    from distributed.cli import dask_worker

    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_login, daemon=True).start()
    paths = Paths.default()
    with hold_connection(get_default_uri()):
        pass  # A host without libvirt says so here, before it joins.
    leftovers.reap_dead_lanes(paths)
    upkeep.sweep_leftovers(paths)
    lanes = settings.lanes or os.cpu_count() or 1
    memory = settings.memory_mib or max(0, measure_available_mib() - RESERVE_MIB)
    dask.config.set({f"distributed.comm.tls.{name}": settings.key for name in KEYS})
    dask.config.set({"distributed.worker.profile.enabled": False})  # It would look at all threads all the time.
    with scratch.make_temporary_folder() as folder:
        arguments = [
            settings.scheduler,
            f"--name={settings.name}",
            f"--nthreads={lanes}",
            f"--resources={LANE}={lanes} {MEMORY}={memory}",
            f"--listen-address=tls://{LOOPBACK}:0",
            f"--contact-address={settings.contact}",
            f"--death-timeout={JOIN_SECONDS}",
            f"--local-directory={folder}",
            *("--no-nanny", "--no-dashboard", "--memory-limit=0", "--preload=lab.fleet.host"),
        ]
        dask_worker.main(arguments, standalone_mode=False)


def dask_setup(worker: Any) -> None:
    """Prepare a worker of dask's before it joins, and print where it is.

    It has no HTTP server, and offers each architecture whose guests this host can run, once for each lane.
    """
    worker.http_server.stop()
    engine.limit_strangers(worker.listener.tcp_server)
    total, available = worker.state.total_resources, worker.state.available_resources
    for name in architectures():
        total[name] = available[name] = total.get(LANE, 0)
    # `worker.port` is that of the address by which the scheduler reaches it.
    port = int(worker.listener.listen_address.rpartition(":")[2])
    print(WorkerStart(pid=os.getpid(), port=port).model_dump_json(), flush=True)


def architectures() -> list[str]:
    """The architectures whose guests this host can run, natively or emulated. None without libvirt."""
    names = []
    with suppress(LabError), hold_connection(get_default_uri()) as libvirt:
        for architecture in ARCHITECTURES.values():
            with suppress(LabError):
                domain.check_emulator(libvirt, architecture)
                names.append(architecture.name)
    return names


def _end_with_login() -> None:
    """End this process when its standard input closes or is silent.

    Without a terminal, an SSH server sends no signal to a command whose connection has gone.
    """
    while select.select([0], [], [], SILENT_SECONDS)[0] and os.read(0, 4096):
        pass
    end_worker()
    # dask may wait for a scheduler that has gone. Parts are ended by the kernel when this process has.
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


def end_worker() -> None:
    """End this worker, and the parts that it runs."""
    part.stop_parts()  # dask's worker waits half a minute for a thread that is busy.
    os.kill(os.getpid(), signal.SIGTERM)


def _read_settings(line: str) -> WorkerSettings:
    """Read what the login sent. Raises UsageError."""
    try:
        return WorkerSettings.model_validate_json(line)
    except ValidationError as error:
        raise UsageError(
            f"the coordinator sent no settings that this lab knows: {format_error(error)}",
            hint="check out the same version of the lab on both",
        ) from error


def main() -> int:
    """Run a worker as the first line of standard input says, which is JSON; the exit status."""
    try:
        run_worker(_read_settings(sys.stdin.readline()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
