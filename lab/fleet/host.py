"""What a host of a run does: it says what it offers, and runs dask's own worker until its login ends.

`python -m lab.fleet.host` prints what the host offers; with arguments, which are dask's, it runs the worker.
Any worker of a run, however it was started, loads this module with `--preload`.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from lab import __version__
from lab.base import scratch
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.lane import upkeep
from lab.machine import acceleration, leftovers
from lab.machine.budget import RESERVE_MIB, available_mib
from lab.machine.connection import connection, default_uri

# How the key ends, as it is sent.
END = b"-----END CERTIFICATE-----\n"
# Where dask wants it.
KEYS = ("ca-file", "worker.cert", "worker.key")
# Nothing of dask's own is measured here.
SETTINGS = {"distributed.worker.profile.enabled": False, "distributed.diagnostics.nvml": False}
# The other end of the login sends something every few seconds. If it is silent for so long, the link is cut.
SILENT_SECONDS = 180.0
# How long a worker has to end by itself.
LEAVE_SECONDS = 60.0


def offer() -> dict[str, Any]:
    """Remove what dead labs left here, and return what this host offers to a run. Raises LabError."""
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
    }


def work(arguments: Sequence[str]) -> None:
    """Run dask's own worker with these arguments. The run's key comes on standard input; no file keeps it."""
    import dask.config
    from distributed.cli import dask_worker

    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    key = b""
    while not key.endswith(END):
        key += os.read(0, 1) or sys.exit("the login ended before the run's key had come")
    dask.config.set(SETTINGS | {f"distributed.comm.tls.{name}": key.decode() for name in KEYS})
    threading.Thread(target=_end_with_login, daemon=True).start()
    with scratch.temporary() as folder:
        own = ["--no-nanny", "--no-dashboard", "--memory-limit", "0", "--local-directory", str(folder)]
        dask_worker.main([*arguments, *own, "--preload", "lab.fleet.host"], standalone_mode=False)


def dask_setup(worker: Any) -> None:
    """Prepare a worker of dask's before it joins: no HTTP server, and a word about where it listens."""
    worker.http_server.stop()
    # `worker.port` is that of the address by which the scheduler reaches it.
    port = int(worker.listener.listen_address.rpartition(":")[2])
    print(json.dumps({"pid": os.getpid(), "port": port}), flush=True)


def _end_with_login() -> None:
    """End this process when its standard input closes or is silent.

    Without a terminal, an SSH server sends no signal to a command whose connection has gone.
    """
    while select.select([0], [], [], SILENT_SECONDS)[0] and os.read(0, 4096):
        pass
    leave()
    # dask may wait for a scheduler that has gone. Parts are ended by the kernel when this process has.
    time.sleep(LEAVE_SECONDS)
    os._exit(1)


def leave() -> None:
    """End this worker, and the parts that it runs."""
    os.kill(os.getpid(), signal.SIGTERM)


def main(words: Sequence[str]) -> int:
    """Print what this host offers, as JSON, or run a worker; the exit status."""
    try:
        if words:
            work(words)
        else:
            print(json.dumps(offer()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
