"""Dask's own worker, whose parts are run by a stand-in: python -m tests.fleet.worker CONTROL ARGUMENTS..."""

import sys
from pathlib import Path

from distributed.cli import dask_worker

from lab.fleet import host, part

CHILD = Path(__file__).parent / "stand_in_child.py"

if __name__ == "__main__":
    part.LAB = (sys.executable, "-SE", str(CHILD), sys.argv.pop(1))
    if sys.argv.pop(1) == "lab.fleet.host":
        sys.exit(host.main())
    dask_worker.main()
