"""A run whose cells are simulated: copies of those of a real run, decided by the real scheduler without guests.

    python -m benchmarks.simulated LIKE FOLDER [--shape GUESTSxVARIANTS] [--seconds S] [--jobs N] [--later]

LIKE is the folder of a real run. Each simulated cell copies the record and the evidence of one of its cells,
and takes S seconds. Nothing of such a run says anything about boxlite. It prints what it took, as JSON.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, combinations, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from lab import catalog
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.lane import prepare_image
from lab.lane.cell import CellRunner
from lab.machine.budget import Limits, Memory
from lab.plan import Cell
from lab.record import CellResult, Outcome, RunOptions, RunResult
from lab.report.live import run_log
from lab.run import scheduler, start
from lab.run.observer import Observer
from lab.run.worker import Worker

RELEASE = Wheel("0.10.8", "0.10.8")
# One in so many cells that failed has a failure of its own, as no other cell has it.
ODD = 10
# One in so many cells that passed has boxes that are less protected.
WEAK = 15
# In a run that is made later, one in so many cells did something else than in the first run.
CHANGED = 12
MEMORY_MIB = 1 << 20


@dataclass(frozen=True)
class Shape:
    """How many guests and variants a run has."""

    guests: int
    variants: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read `12x25`. Raises ArgumentTypeError."""
        words = text.split("x")
        if len(words) != 2 or not all(word.isdecimal() and int(word) for word in words):
            raise argparse.ArgumentTypeError(f"{text!r}: expected GUESTSxVARIANTS, for example 12x25")
        return cls(*map(int, words))

    @property
    def cells(self) -> int:
        return self.guests * self.variants

    def __str__(self) -> str:
        return f"{self.guests}x{self.variants}"

    def plan(self) -> list[Cell]:
        """Return as many cells, of the catalog's guests and variants and of one release."""
        known = catalog.load()
        guests = list(islice(known.guests.values(), self.guests))
        variants = list(islice(_variants(known), self.variants))
        if len(guests) < self.guests or len(variants) < self.variants:
            raise SystemExit(
                f"{self}: the catalog has {len(guests)} guests, and {len(variants)} variants and pairs of them"
            )
        return [Cell(guest, variant, RELEASE) for guest in guests for variant in variants]


def _variants(known: catalog.Catalog) -> Iterator[Variant]:
    """The variants of the catalog, and then all pairs of them that do not contradict each other."""
    names = sorted(known.variants, key=lambda name: (name != "stock", name))
    pairs = ("+".join(pair) for pair in combinations(names[1:], 2))
    for name in chain(names, pairs):
        try:
            yield known.variant(name)
        except UsageError:
            continue


@dataclass(frozen=True)
class Originals:
    """The cells of a real run that ran a suite, to be copied. `folder` is the run's."""

    folder: Path
    run: RunResult

    @classmethod
    def read(cls, folder: Path) -> "Originals":
        """Read a run. Raises SystemExit if no suite ran in it, UsageError if it cannot be read."""
        run = RunResult.read(folder)
        run = run.model_copy(update={"cells": [cell for cell in run.cells if cell.tests]})
        if not run.cells:
            raise SystemExit(f"{folder}: no suite ran in any of its cells; name another run")
        return cls(folder, run)

    def copy(self, cell: Cell, number: int, folder: Path) -> CellResult:
        """Copy an original's evidence to a cell's folder and return its result as that cell's."""
        original = self.run.cells[number % len(self.run.cells)]
        shutil.copytree(self.folder / original.folder, folder, dirs_exist_ok=True)
        # Remedies and experiments have paths of evidence, too.
        text = original.model_dump_json().replace(f"{original.folder}/", f"{cell.folder}/")
        update: dict[str, Any] = {
            "guest": cell.guest.name,
            "variant": cell.variant.name,
            "build": cell.build.name,
            "expected": cell.expected,
        }
        return _varied(CellResult.model_validate_json(text).model_copy(update=update), number)


def _varied(result: CellResult, number: int) -> CellResult:
    """Make some results differ from all others, as those of a real run would."""
    failed = [test for test in result.tests if test.outcome is not Outcome.PASS]
    if failed and number % ODD == 0:
        return result.model_copy(update={"reason": f"{result.reason} (simulated difference {number})"})
    if not failed and number % WEAK == 0:
        tests = [
            test.model_copy(update={"protection": test.protection.model_copy(update={"no_new_privs": False})})
            if test.protection
            else test
            for test in result.tests
        ]
        return result.model_copy(update={"tests": tests})
    return result


class Runner:
    """Stands in for a CellRunner: copies an original instead of running a suite."""

    def __init__(self, worker: "SimulatedWorker", running: Any) -> None:
        self.worker, self.running, self.served = worker, running, 0

    def why_not(self, _cell: Cell) -> None:
        return None

    def run(self, cell: Cell, folder: Path, _options: SuiteOptions) -> CellResult:
        self.served += 1
        self.worker._say(cell.variant.name)
        self.worker._say(f"{cell.variant.name}: running the suite")
        time.sleep(self.worker.seconds)
        number = self.worker.numbers[cell.folder]
        return self.worker.originals.copy(cell, number, folder)


class SimulatedWorker(Worker):
    """A worker without a machine. Serving cells, decisions, backlog and journal are the lab's own."""

    originals: Originals
    seconds: float
    numbers: dict[Path, int]

    def work(self) -> None:
        lane = self.originals.run.run.lanes[0]
        if host := next(iter(self.originals.run.run.hosts()), None):
            self._journal.begin_on(host)
        self._backlog.image_is_ready(self.machine.guest.name)
        self._say("booting")
        self._backlog.lane_is_up(self.machine.name, self.number)
        self._decisions.tell_time_left()
        self._wake()
        alive = SimpleNamespace(check_alive=lambda: None)
        running = SimpleNamespace(lane=alive, deploy=lambda _build: {"boxlite.whl": "0" * 64})
        self._runner = cast(CellRunner, Runner(self, running))
        while not self.is_stopped and not self._decisions.crash:
            ticket = self._backlog.take(self.machine.name, self.number)
            if ticket is None or not self.serve(ticket):
                break
        own: dict[str, Any] = {"label": self.label, "guest": self.machine.guest.name}
        self._journal.add_lane(lane.model_copy(update=own))


def make(originals: Originals, folder: Path, shape: Shape, seconds: float, jobs: int, *, later: bool) -> None:
    """Make a run in a folder that does not exist yet."""
    options = RunOptions(retries=0)
    planned = start.begin(folder, shape.plan(), command=f"simulated cells, {shape}", options=options)
    # A later run has another original behind some cells.
    turn = [number + (1 if later and number % CHANGED == 0 else 0) for number in range(len(planned.cells))]
    SimulatedWorker.originals, SimulatedWorker.seconds = originals, seconds
    SimulatedWorker.numbers = {cell.folder: turn[n] for n, cell in enumerate(planned.cells)}
    with ExitStack() as stack:
        for where, name, instead in (
            (scheduler, "Worker", SimulatedWorker),
            (scheduler, "connection", lambda _uri: ExitStack()),
            (scheduler, "Memory", lambda limit: Memory(limit, available=lambda: MEMORY_MIB)),
            (prepare_image, "is_ready", lambda _paths, _guest: True),
            (prepare_image, "why_absent", lambda *_args, **_kwargs: {}),
        ):
            stack.enter_context(patch.object(where, name, instead))
        log = stack.enter_context(run_log(folder, Observer()))
        scheduler.Scheduler(planned, Paths.default(), "", Limits(jobs), log).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("like", type=Path, help="the folder of a real run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", type=Shape.parse, default=Shape(12, 25))
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--later", action="store_true", help="one in 12 cells does something else")
    options = parser.parse_args()
    originals = Originals.read(options.like)
    begun = time.monotonic()
    make(originals, options.folder, options.shape, options.seconds, options.jobs, later=options.later)
    print(json.dumps({"simulated": options.shape.cells, "seconds": round(time.monotonic() - begun, 2)}))


if __name__ == "__main__":
    main()
