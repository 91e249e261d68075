"""Measures what the parts of a run move and cost, over the real transport: TLS, dask, real host workers.

    python -m benchmarks.carried LIKE [--shape GUESTSxVARIANTS] [--hosts N]... [--idle SECONDS]

LIKE is the folder of a real run. The children of the workers are stand-ins that take no time: each copies the
record and the evidence of LIKE's cells. All bytes between a host and the coordinator pass a meter, with TLS's
own. The coordinator is a process of its own. Its processor time and memory are measured twice: while each host
holds a part that does nothing, and from then on until the run has ended.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks import history
from benchmarks.simulated import Shape
from lab.base.wait import Deadline, wait_for
from lab.run.journal import RUN_LOG
from tests.fleet.examples import ROOT, Fleet
from tests.fleet.link import Link

SECONDS = 900.0
KIB = 1024
HOSTS = (3, 12)


@dataclass
class Usage:
    """Processor seconds and resident memory of a process, and the bytes that hosts sent and got until now."""

    processor: float
    memory_mib: float
    sent: int
    got: int
    at: float


@dataclass
class Carried:
    """What one run with so many hosts moved and cost."""

    hosts: int
    parts: int
    idle: tuple[Usage, Usage]
    work: tuple[Usage, Usage]
    peak_mib: float

    def figures(self) -> list[history.Figure]:
        (idle_from, idle_to), (begun, ended) = self.idle, self.work
        of = f"{self.hosts} hosts"
        minutes = self.hosts * (idle_to.at - idle_from.at) / 60
        rows = [
            ("a part, coordinator", (ended.processor - begun.processor) / self.parts, "processor s"),
            ("a part, to its host", (ended.got - begun.got) / self.parts / KIB, "KiB"),
            ("a part, from its host", (ended.sent - begun.sent) / self.parts / KIB, "KiB"),
            ("run, a host moves", (ended.got + ended.sent - begun.got - begun.sent) / self.hosts / KIB, "KiB"),
            ("run, wall", ended.at - begun.at, "s"),
            ("idle host, coordinator", (idle_to.processor - idle_from.processor) / minutes, "processor s/min"),
            (
                "idle host moves",
                (idle_to.got + idle_to.sent - idle_from.got - idle_from.sent) / minutes / KIB,
                "KiB/min",
            ),
            ("coordinator, before the run", idle_to.memory_mib, "MiB"),
            ("coordinator, most", self.peak_mib, "MiB"),
        ]
        return [history.Figure(name=f"{of}: {name}", value=value, unit=unit) for name, value, unit in rows]


class Coordinator:
    """The coordinator as a process."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        command = [sys.executable, "-m", "benchmarks.carrying", "coordinate", str(shape), str(folder)]
        self._log = folder / "coordinator.log"
        with self._log.open("wb") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.port = int(self.says()["port"])

    def says(self) -> dict[str, float]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            found: dict[str, float] = json.loads(line)
            return found
        raise SystemExit(f"the coordinator ended: {self._log.read_text()}")

    def usage(self, links: Sequence[Link]) -> Usage:
        of = psutil.Process(self.process.pid)
        times, memory = of.cpu_times(), of.memory_info().rss
        sent, got = sum(link.sent for link in links), sum(link.got for link in links)
        return Usage(times.user + times.system, memory / 2**20, sent, got, time.monotonic())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(like: Path, shape: Shape, hosts: int, idle: float) -> Carried:
    """Run a plan on so many hosts; first they have nothing to do for some seconds."""
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        fleet = Fleet(folder, names=[f"host-{number}" for number in range(hosts)])
        stack.callback(fleet.end)
        fleet.put_images({cell.guest.name: cell.guest for cell in shape.plan()}.values())
        coordinator = Coordinator(folder, shape)
        stack.callback(coordinator.end)
        links = [Link(coordinator.port) for _ in range(hosts)]
        child = ["-m", "benchmarks.carrying", "child", str(like.resolve())]
        for name, link in zip(fleet.names, links, strict=True):
            stack.callback(link.close)
            fleet.start(name, link.address, child=child, until=str(folder / "gate"))
        log = folder / "run" / RUN_LOG
        wait_for(
            lambda: (log.exists() and log.read_text().count(": waiting") >= hosts) or None,
            Deadline(SECONDS, "all hosts to have a part"),
        )
        before = coordinator.usage(links)
        time.sleep(idle)
        begun = coordinator.usage(links)
        (folder / "gate").touch()
        said = coordinator.says()
        ended = coordinator.usage(links)
        if said["passed"] != shape.cells:
            raise SystemExit(f"{said['passed']} of {shape.cells} cells came back: {log.read_text()[-3000:]}")
        return Carried(hosts, int(said["parts"]), (before, begun), (begun, ended), said["peak_mib"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("like", type=Path, metavar="LIKE", help="the folder of a real run")
    parser.add_argument("--shape", type=Shape.parse, default=Shape(12, 25), metavar="GUESTSxVARIANTS")
    parser.add_argument("--hosts", type=int, action="append", metavar="N")
    parser.add_argument("--idle", type=float, default=30.0, metavar="SECONDS")
    history.add_options(parser)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    hosts = options.hosts or HOSTS
    figures = []
    for number in hosts:
        carried = measure(options.like, options.shape, number, options.idle)
        console.print(f"{number} hosts, {carried.parts} parts of {options.shape.cells} cells:")
        for figure in carried.figures():
            console.print(f"  {figure.name}: {figure.value:.3f} {figure.unit}")
        figures += carried.figures()
    history.keep(
        console,
        options,
        "carried",
        setting=f"{options.shape}, {', '.join(map(str, hosts))} hosts",
        figures=figures,
        note="The lanes take no time.",
    )


if __name__ == "__main__":
    main()
