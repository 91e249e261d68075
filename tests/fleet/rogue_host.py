"""A host with a good certificate that answers a part with objects: python -m tests.fleet.rogue_host ADDRESS
CERTIFICATE KIND MARKER. Whoever unpickles one of them makes the file MARKER."""

import asyncio
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from distributed import Security
from distributed.comm import connect

from lab.fleet import certificates

REGISTRATION = {
    "op": "register-worker",
    "reply": False,
    "address": "tls://127.9.9.9:999",
    "status": "running",
    "nthreads": 1,
    "name": "rogue",
    "resources": {"lane": 1, "memory": 9000, "kvm": 0},
    "memory_limit": None,
    "local_directory": "/tmp",
    "services": {},
    "nanny": None,
    "pid": 1,
    "versions": {},
    "extra": {},
    "stimulus_id": "x",
    "server_id": "x",
    "metrics": {
        "bandwidth": {"total": 1, "workers": {}, "types": {}},
        "digests_total_since_heartbeat": {},
        "memory": 0,
        "spilled_bytes": {"memory": 0, "disk": 0},
    },
}


class Rogue(Exception):
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


def reply(kind: str, task: dict[str, Any], rogue: Rogue) -> dict[str, Any]:
    both = {"key": task["key"], "run_id": task["run_id"], "stimulus_id": "x", "thread": 1, "startstops": ()}
    finished = {"op": "task-finished", "nbytes": 1, "typename": "x", "metadata": {}, "status": "OK"}
    erred = {"op": "task-erred", "exception_text": "Rogue()", "traceback_text": "", "status": "error"}
    bad = pickle.dumps(rogue)
    return {
        "type": {**both, **finished, "type": bad},
        "bytes": {**both, **erred, "exception": bad, "traceback": bad},
    }[kind]


async def main(address: str, certificate: str, kind: str, marker: str) -> None:
    security = Security(**certificates.read(Path(certificate), missing="").security())
    comm = await connect(address, **security.get_connection_args("worker"))
    await comm.write({**REGISTRATION, "now": time.time()})
    assert (await comm.read())["status"] == "OK"
    while True:
        for message in await comm.read():
            if message["op"] == "compute-task":
                await comm.write([reply(kind, message, Rogue(Path(marker)))])
                await asyncio.sleep(2)
                comm.abort()
                return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
