"""Measures what a slower clock of an emulated guest costs, and what margin its boxes have.

Runs a blocked and a passing cell by each rate, in a lane of its own from the boot on. All rates run at the same
time, so that whatever else the host does slows all of them down; give as many as it has processors.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from benchmarks import history
from lab.base import scratch
from lab.base.paths import Paths
from lab.record import RunResult

# The command line, with another rate than the lab's own; 1 is the host's clock.
LAB = """
import runpy, sys
from lab.machine import clock
clock.RATE = float(sys.argv.pop(1))
if clock.RATE == 1:
    clock.FOLDERS = ()
runpy.run_module("lab", run_name="__main__")
"""
BLOCKED, PASSING = "userns-clone-off", "stock"


@dataclass(frozen=True)
class Measured:
    """What came of one rate. Seconds are real but for `boxes`, which are on the guest's clock."""

    rate: float
    boot: float
    deploy: float
    blocked: float
    passing: float
    processor: float
    boxes: list[float]
    missed: int
    statuses: str

    @classmethod
    def of(cls, rate: float, run: RunResult) -> "Measured":
        """Read it from a run's record."""
        cells = {cell.variant: cell for cell in run.cells}
        lanes = run.run.lanes
        return cls(
            rate,
            sum(lane.seconds.get("boot", 0.0) for lane in lanes),
            sum(lane.seconds.get("deploy", 0.0) for lane in lanes),
            cells[BLOCKED].suite.seconds.get("suite", 0.0),
            cells[PASSING].suite.seconds.get("suite", 0.0),
            sum(lane.processor_seconds or 0.0 for lane in lanes),
            [test.seconds for test in cells[PASSING].tests if test.protection],
            sum(
                fault is not None and fault.missed_a_limit
                for cell in run.cells
                for fault in (*cell.history.faults, cell.verdict.fault)
            ),
            ", ".join(f"{cell.variant} {cell.status}" for cell in run.cells),
        )


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Keep the host busy with so many programs, each in a session of its own."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command, start_new_session=True) for _ in range(programs)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def measure(rates: Sequence[float], guest: str, build: str, programs: int) -> list[Measured]:
    """Run both cells by each rate. Each has a home with a copy of the guest's images, and no stored state."""
    words = ["-g", guest, "-v", BLOCKED, "-v", PASSING, "--build", build, "--jobs", "1", "--no-remedies"]
    own = Paths.default()
    with scratch.make_locked_folder(own.make(own.state), "clock-benchmark-") as folder, busy(programs):
        folder.chmod(0o755)
        homes = [folder / str(number) for number, _ in enumerate(rates)]
        running = []
        for rate, home in zip(rates, homes, strict=True):
            shutil.copytree(own.images, home / "cache" / own.images.name, copy_function=_link, symlinks=True)
            command = [sys.executable, "-c", LAB, str(rate), "matrix", *words, "-o", str(home / "run")]
            with (home / "log").open("w") as log:
                environment = {**os.environ, "LAB_HOME": str(home)}
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        for each in running:
            each.wait()
        try:
            found = [
                Measured.of(rate, RunResult.read(home / "run")) for rate, home in zip(rates, homes, strict=True)
            ]
        finally:
            shutil.rmtree(folder)
    return found


def _link(source: str, target: str) -> None:
    os.link(source, target)


def show(found: Sequence[Measured], to: Console) -> None:
    columns = ("clock", "boot", "deploy", "blocked", "passing", "processor", "boxes", "missed", "statuses")
    table = Table(*columns)
    for each in found:
        boxes = f"{min(each.boxes):.1f} to {max(each.boxes):.1f}" if each.boxes else "none"
        spent = (each.boot, each.deploy, each.blocked, each.passing, each.processor)
        table.add_row(
            f"{each.rate:g}", *(f"{value:.0f}" for value in spent), boxes, str(each.missed), each.statuses
        )
    to.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rates", type=float, nargs="+", metavar="RATE", help="0.1 is a tenth of real time")
    parser.add_argument("--guest", default="debian-13")
    parser.add_argument("--build", default="0.10.8")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="keep the host busy with N programs")
    history.add_options(parser)
    arguments = parser.parse_args()
    found = measure(arguments.rates, arguments.guest, arguments.build, arguments.busy)
    to = Console(highlight=False)
    show(found, to)
    history.keep(
        to,
        arguments,
        "clock",
        setting=f"{arguments.guest} {arguments.build} busy={arguments.busy}",
        figures=[
            history.Figure.median(f"{each.rate:g}: {step}", [value]).model_copy(update={"unit": "s"})
            for each in found
            for step, value in asdict(each).items()
            if isinstance(value, float) and step != "rate"
        ],
        details={f"{each.rate:g}": asdict(each) for each in found},
    )


if __name__ == "__main__":
    main()
