"""What a host of a run does beside dask's worker: it says what it offers, and ends the worker with its login.

`python -m lab.fleet.host` prints what the host offers. dask's worker loads this module with `--preload`.
"""

import fcntl
import importlib.util
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lab import __version__
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.lane import upkeep
from lab.machine import acceleration, leftovers
from lab.machine.budget import RESERVE_MIB, available_mib
from lab.machine.connection import connection, default_uri

# The file with the run's credentials, if the worker was started over SSH. It is deleted once dask has read it.
CREDENTIALS = "LAB_FLEET_CREDENTIALS"
# The other end of the login sends something now and then. If it is silent for so long, the link is cut.
BEAT_SECONDS = 20.0
SILENT_SECONDS = 180.0


def offer() -> dict[str, Any]:
    """Remove what dead labs left here, and return what this host offers to a run. Raises LabError."""
    if importlib.util.find_spec("distributed") is None:
        raise LabError(
            "dask.distributed is not installed here",
            hint="in the lab's checkout there: ./setup.sh host",
        )
    paths = Paths.default()
    with connection(default_uri()) as opened:
        how = acceleration.cached(opened, paths)
    leftovers.reap(paths)
    upkeep.sweep(paths)
    return {
        "lab": __version__,
        "lanes": os.cpu_count() or 1,
        "memory_mib": max(0, available_mib() - RESERVE_MIB),
        "kvm": how.kvm if how else os.access("/dev/kvm", os.R_OK | os.W_OK),
        "images": str(paths.make(paths.images)),
        "time": time.time(),
    }


def dask_setup(worker: Any) -> None:
    """Prepare a worker of dask's before it joins: no HTTP server, and an end with the login that started it."""
    worker.http_server.stop()
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    if file := os.environ.pop(CREDENTIALS, ""):
        Path(file).unlink(missing_ok=True)
        # While this process lives, its folder is not one that a dead lab left.
        fcntl.flock(os.open(Path(file).parent, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # `worker.port` is that of the address by which the scheduler reaches it.
        port = int(worker.listener.listen_address.rpartition(":")[2])
        print(json.dumps({"pid": os.getpid(), "port": port}), flush=True)
        threading.Thread(target=_end_with_login, daemon=True).start()


def _end_with_login() -> None:
    """End this process when its standard input closes or is silent.

    Without a terminal, an SSH server sends no signal to a command whose connection has gone.
    """
    while select.select([0], [], [], SILENT_SECONDS)[0] and os.read(0, 4096):
        pass
    leave()


def leave() -> None:
    """End this worker, and the parts that it runs."""
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Print what this host offers, as JSON; the exit status."""
    try:
        print(json.dumps(offer()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
