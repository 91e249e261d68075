"""Measures what the parts of a run move and cost, through the real transport: TLS, dask, host workers as processes.

    python -m benchmarks.carried LIKE [--shape GUESTSxVARIANTS] [--hosts N]... [--idle SECONDS]

LIKE is the folder of a real run. The children of the workers are stand-ins that take no time: each copies the
record and the evidence of LIKE's cells. All bytes between a host and the coordinator pass a meter. The
coordinator is a process of its own, whose processor time and memory are measured from when it listens, while
the run goes on, and before that while its hosts have nothing to do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console

from benchmarks import history
from benchmarks.simulated import Shape
from lab.base.wait import Deadline, wait_for
from lab.fleet import issuing
from tests.fleet.examples import ROOT, Fleet
from tests.fleet.link import Link

SECONDS = 900.0
KIB = 1024


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
    cells: int
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
    """The coordinator as a process (`benchmarks.carrying`). It gives nothing out before it gets a line."""

    def __init__(self, fleet: Fleet, shape: Shape) -> None:
        command = [sys.executable, "-m", "benchmarks.carrying", "coordinate", str(shape), str(fleet.folder)]
        self.log = (fleet.folder / "coordinator.log").open("wb")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.port = int(self.read()["port"])

    def read(self) -> dict[str, object]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            found: dict[str, object] = json.loads(line)
            return found
        raise SystemExit(f"the coordinator ended: {Path(self.log.name).read_text()}")
