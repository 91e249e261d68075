"""The processes of `benchmarks.carried`: the coordinator, and a host's child that copies cells of a real run.

python -m benchmarks.carrying coordinate SHAPE FOLDER
python -m benchmarks.carrying child LIKE PART FOLDER CONTROL HOST
"""

import json
import resource
import sys
import time
from pathlib import Path
from zlib import crc32

from benchmarks.fleet import leave
from benchmarks.simulated import Originals, Shape
from lab import catalog
from lab.base.paths import Paths
from lab.fleet import certificates
from lab.fleet.address import Address
from lab.fleet.coordinator import Coordinator
from lab.fleet.events import EventLines
from lab.fleet.part import Part
from lab.record import RunOptions, RunResult
from lab.report.runlog import RunLog
from lab.run import start
from lab.run.observer import Silent

OPTIONS = RunOptions(remedies=True, retries=0)
# What a lane tells of a cell, as a real one does.
STEPS = ("forking the checkpoint", "applying", "running the suite", "gathering evidence")


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def coordinate(shape: str, folder: str) -> None:
    """Run a plan on hosts that join; end when standard input does."""
    plan, run = Shape.parse(shape).plan(), Path(folder) / "run"
    planned = start.begin(run, plan, command="simulated parts", options=OPTIONS, shard=None)
    paths = Paths(cache=Path(folder) / "cache", state=Path(folder) / "state")
    with RunLog(run, Silent()) as log:
        coordinator = Coordinator(
            planned,
            paths,
            Address("127.0.0.1", 0),
            certificates.load_coordinator(paths).security(),
            log,
            listening=lambda address: say(port=int(address.rpartition(":")[2])),
        )
        result = coordinator.run()
    say(
        passed=sum(bool(cell.tests) for cell in result.cells),
        parts=len({cell.lane for cell in result.cells}),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    sys.stdin.read()


def child(like: str, part: str, folder: str, control: str, _host: str) -> None:
    """Wait until the run may begin, and leave what a real child would."""
    gate = Path(json.loads(Path(control).read_text())["until"])
    planned = Part.read(Path(part).read_bytes()).plan(Path(folder), catalog.load())
    lines = EventLines(sys.stdout)
    lines.lane(planned.cells[0].guest.name, "waiting")
    while not gate.exists():
        time.sleep(0.1)
    originals = Originals.read(Path(like))
    numbers = {cell.folder: crc32(str(cell.folder).encode()) for cell in planned.cells}
    leave(originals, planned.cells, numbers, planned.folder)
    for result in RunResult.read(planned.folder).cells:
        for step in STEPS:
            lines.lane(result.lane, f"{result.variant}: {step}")
        lines.cell(result)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "coordinate":
        coordinate(*arguments)
    else:
        child(*arguments)
