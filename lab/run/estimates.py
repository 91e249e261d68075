"""How long cells and lanes will take: the medians of earlier runs, or typical times if there are none."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from lab.plan import DEFAULT_OPTIONS, Cell
from lab.record import (
    RESULTS_FILE,
    CellResult,
    ExperimentPolicy,
    RunOptions,
    RunResult,
    Status,
)
from lab.run.lanes import host_name

# Under emulation on two processors a boot alone took 25 to 29 s, a deployment 13 to 20 s.
BRING_UP_SECONDS = 45.0

# A further lane of a guest restores the boot that the first one stored, in 5 to 10 s, and deploys in 10 s.
BRING_UP_AGAIN_SECONDS = 20.0

# How many of the newest runs are read: older ones ran other tests and builds.
RUNS = 20


class Estimates:
    """Estimated seconds of cells that are run with these options."""

    def __init__(self, runs: Iterable[RunResult] = (), options: RunOptions = DEFAULT_OPTIONS) -> None:
        self._options = options
        self._cells: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._variants: dict[str, list[float]] = defaultdict(list)
        self._lanes: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for run in runs:
            for cell in run.cells:
                self.learn(cell, run.run.options)
            for lane in run.run.lanes:
                if lane.fork != "cold":
                    self._lanes[lane.guest, lane.restored].append(sum(lane.seconds.values()))

    def learn(self, cell: CellResult, ran: RunOptions) -> None:
        """Learn from a cell that was run with the options `ran`."""
        key = (cell.guest, cell.variant)
        if cell.status is Status.NOT_APPLICABLE:
            self._cells[key].append(0.0)
        # The seconds of a cold cell include its boot.
        elif cell.tests and cell.fork != "cold":
            spent = self._spent(cell, ran)
            if spent is not None:
                self._cells[key].append(spent)
                self._variants[cell.variant].append(spent)

    @property
    def are_measured(self) -> bool:
        """Whether a suite was timed on this host; without that all seconds are those of another one."""
        return bool(self._variants)

    @classmethod
    def from_folder(cls, runs: Path, options: RunOptions = DEFAULT_OPTIONS) -> "Estimates":
        """Learn from the lab's newest runs that were made here alone; skip those that cannot be read."""
        return cls(_newest(runs), options)

    def _spent(self, cell: CellResult, ran: RunOptions) -> float | None:
        """Seconds spent on the steps that this run repeats; None if that run skipped any of them."""
        spent = sum(cell.seconds.values())
        if self._options.remedies and cell.cause:
            if not ran.remedies:
                return None
            spent += sum(remedy.seconds for remedy in cell.remedies)
        always = self._options.experiments is ExperimentPolicy.ALWAYS
        if always and cell.experiment is None:
            return None
        if cell.experiment and (always or ran.experiments is self._options.experiments):
            spent += cell.experiment.seconds
        return spent

    def cell(self, cell: Cell) -> float:
        """Seconds for one repeat of a cell: measured on its guest, else on any guest, else what is typical."""
        guest, variant = cell.guest.name, cell.variant.name
        measured = self._cells.get((guest, variant)) or self._variants.get(variant)
        return median(measured) if measured else cell.typical_seconds(self._options)

    def bring_up(self, guest: str) -> float:
        """Seconds from the start of a lane to its checkpoint, without the time to build an image."""
        # If the guest's boot was restored from the store once, it will be next time, too.
        measured = self._lanes.get((guest, True)) or self._lanes.get((guest, False))
        return median(measured) if measured else BRING_UP_SECONDS

    def bring_up_again(self, guest: str) -> float:
        """The same for a further lane of a guest that is up."""
        measured = self._lanes.get((guest, True))
        return median(measured) if measured else min(BRING_UP_AGAIN_SECONDS, self.bring_up(guest))


def _newest(runs: Path) -> Iterator[RunResult]:
    """Read the newest runs, and leave out those that other hosts took part in."""
    for file in sorted(runs.glob(f"*/{RESULTS_FILE}"), key=_written, reverse=True)[:RUNS]:
        try:
            run = RunResult.model_validate_json(file.read_bytes())
        except (OSError, ValidationError, json.JSONDecodeError):
            continue
        if run.run.host and run.run.host.name == host_name():
            yield run


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
