"""How many lanes are best: the real scheduler and queue for processors, with lanes that only sleep.

    python -m benchmarks.lanes [--processors N]... [--shape GUESTSxVARIANTS]... [--scale S]

A lane sleeps for each step as long as it takes under emulation, S times faster, and holds a processor where a
real one does. Printed is by how much the wall time is beyond what the processors could do, for different
numbers of lanes. What steps that hold no processor take from others is left out.
"""

import argparse
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks import history
from benchmarks.simulated import MEMORY_MIB, Shape
from lab.base.paths import Paths
from lab.builds import SuiteOptions
from lab.lane import prepare_image
from lab.machine.budget import Limits, Memory
from lab.plan import Cell
from lab.record import CellResult, RunOptions, Status
from lab.run import absent, scheduler, start
from lab.run.estimates import Estimates
from lab.run.observer import Silent
from lab.run.serving import Serving
from lab.run.worker import Worker

# Seconds under emulation on an idle host: of a lane's start and of a cell, beside its suite.
BOOT, STORE, DEPLOY = 30.0, 4.0, 25.0
LOAD, APPLY_AND_EVIDENCE = 2.0, 4.0


@dataclass
class Spent:
    """The processor seconds of all lanes of a run."""

    seconds: float = 0.0
    scale: float = 50.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sleep(self, seconds: float, *, busy: bool = True) -> None:
        """Take this long, on a processor if `busy`."""
        time.sleep(seconds / self.scale)
        with self._lock:
            self.seconds += seconds if busy else 0.0


@dataclass
class Runner:
    """Stands in for a CellRunner."""

    spent: Spent
    running: Any
    processors: Any
    served: int = 0

    def why_not(self, _cell: Cell) -> None:
        return None

    def run(self, cell: Cell, _folder: Path, _options: SuiteOptions) -> CellResult:
        self.spent.sleep(LOAD, busy=False)
        self.spent.sleep(APPLY_AND_EVIDENCE)
        with self.processors.hold(1):
            self.spent.sleep(cell.typical_seconds())
        return cell.result(Status.PASS)


class SleepingWorker(Worker):
    """A worker without a machine."""

    spent: Spent

    @property
    def is_emulated(self) -> bool:
        return True

    def work(self) -> None:
        processors = self._shared.work.processors
        with processors.hold(1):
            self.spent.sleep(BOOT)
        self.spent.sleep(STORE, busy=False)
        with processors.hold(1):
            self.spent.sleep(DEPLOY)
        self._shared.backlog.lane_is_up(self.machine.name, self.number)
        self._shared.wake()
        running = SimpleNamespace(lane=SimpleNamespace(check_alive=lambda: None), deploy=lambda _build: None)
        runner: Any = Runner(self.spent, running, processors)
        serving = Serving(self._shared, runner, self.machine.name, self.number, self.label)
        while ticket := self._shared.backlog.take(self.machine.name, self.number):
            serving.serve(ticket)


class Known(Estimates):
    """The lab knows how long a lane takes to come up."""

    def bring_up(self, _guest: str) -> float:
        return BOOT + STORE + DEPLOY


def measure(shape: Shape, limits: Limits, scale: float) -> tuple[float, float]:
    """The wall time of a run in seconds under emulation, and its processor seconds."""
    SleepingWorker.spent = spent = Spent(scale=scale)
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made) / "run"
        planned = start.begin(folder, shape.plan(), command="", options=RunOptions(rootfs="/none"), shard=None)
        for where, name, instead in (
            (scheduler, "Worker", SleepingWorker),
            (scheduler, "connection", lambda _uri: ExitStack()),
            (scheduler, "Memory", lambda limit: Memory(limit, available=lambda: MEMORY_MIB)),
            (prepare_image, "is_ready", lambda _paths, _guest: True),
            (absent, "find", lambda *_args, **_kwargs: absent.Absent({})),
        ):
            stack.enter_context(patch.object(where, name, instead))
        run = scheduler.Scheduler(
            planned.cells, Paths.default(), folder, "", planned.info, limits, Silent(), estimates=Known()
        )
        begun = time.monotonic()
        run.run()
        return (time.monotonic() - begun) * scale, spent.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processors", type=int, action="append")
    parser.add_argument("--shape", type=Shape.parse, action="append")
    parser.add_argument("--scale", type=float, default=50.0)
    history.add_options(parser)
    options = parser.parse_args()
    figures: list[history.Figure] = []
    for processors in options.processors or [2, 4]:
        for shape in options.shape or [Shape(*each) for each in ((1, 5), (2, 4), (3, 5), (5, 5), (7, 5))]:
            for jobs, spare in ((processors, 0), (processors, 1), (2 * processors, 0)):
                wall, busy = measure(shape, Limits(jobs, processors=processors, spare=spare), options.scale)
                bound = busy / processors
                name = f"{jobs} + {spare}" if spare else str(jobs)
                beyond = f"{wall / bound - 1:4.0%} beyond the bound"
                what = f"{processors} processors, {shape}, lanes {name}"
                figures.append(history.Figure(name=what, value=wall / bound, unit="of the bound"))
                print(
                    f"{processors} processors, {shape}: lanes {name:5}, wall {wall:5.0f} s, "
                    f"processors {busy:5.0f} s, {beyond}",
                    flush=True,
                )
    history.keep(
        Console(highlight=False), options, "lanes", setting=f"{options.scale:g} times faster", figures=figures
    )


if __name__ == "__main__":
    main()
