"""A host's program, whose parts are run by a stand-in: python -m tests.fleet.worker CONTROL."""

import sys
from pathlib import Path

from lab.fleet import host, part

CHILD = Path(__file__).parent / "stand_in_child.py"

if __name__ == "__main__":
    part.LAB = (sys.executable, "-SE", str(CHILD), sys.argv[1])
    sys.exit(host.main())
