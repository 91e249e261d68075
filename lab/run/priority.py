"""Which cells of a run say most, from what they did in earlier runs, so that a short run begins with those."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.files import group_values
from lab.plan import Cell
from lab.record import CellResult, Expectation, Foreseen, Prediction, RunResult, Status
from lab.record.folders import list_folders

# How many of the newest runs are looked at: what was before them says little about today's boxlite.
MOST_RUNS = 20
# Why the rest of a run with --within is not-run.
OVER_BUDGET = "budget: --within was over"

# A guest, a variant and a suite: builds differ from run to run, and what they do there is compared.
Place = tuple[str, str, str]
Did = tuple[Status, str | None]


@dataclass(frozen=True)
class PastOutcomes:
    """What the cells of earlier runs did, the oldest first, and the last prediction of each."""

    did: Mapping[Place, Sequence[Did]] = field(default_factory=dict)
    predictions: Mapping[Place, Prediction] = field(default_factory=dict)

    def changes(self, cell: Cell) -> tuple[int, int]:
        """How often a cell did something else than in the run before, and how often it could have."""
        did = self.did.get(_place(cell), ())
        changed = sum(now != before or now[0] is Status.FLAKY for before, now in pairwise(did))
        return changed, max(0, len(did) - 1)

    def is_surprising(self, cell: Cell) -> bool:
        """Whether a cell changed lately, or the probes expect something else than its definition."""
        prediction = self.predictions.get(_place(cell))
        return self.changes(cell)[0] > 0 or (prediction is not None and _differs(prediction, cell.expected))


@dataclass(frozen=True)
class Budget:
    """How long a run may begin cells, in seconds from now, and what earlier runs say of them."""

    seconds: float
    history: PastOutcomes
    begun: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.begun >= self.seconds

    def order(self, cells: Iterable[Cell]) -> list[Cell]:
        return order_cells(cells, self.history)


def read_history(runs: Path) -> PastOutcomes:
    """Read the newest of the lab's runs in this folder; those that cannot be read say nothing."""
    pairs: list[tuple[Place, CellResult]] = []
    for folder in list_folders(runs)[-MOST_RUNS:]:
        with suppress(UsageError):
            run = RunResult.read(folder)
            suites = {build.name: build.suite for build in run.run.builds}
            pairs += [((cell.guest, cell.variant, suites[cell.build]), cell) for cell in run.cells]
    ran = [
        (place, (cell.status, cell.cause))
        for place, cell in pairs
        if cell.status.is_decisive or cell.status is Status.FLAKY
    ]
    predictions = {place: cell.prediction for place, cell in pairs if cell.prediction}
    return PastOutcomes(group_values(ran), predictions)


def order_cells(cells: Iterable[Cell], history: PastOutcomes) -> list[Cell]:
    """Order cells by how much each is likely to say.

    First those that changed lately or surprise the probes; then one for each cause and family of guests; then
    the others. Among equals, cells of one machine follow each other: to open a lane costs as much as a cell.
    """
    ranks: dict[Path, int] = {}
    met: set[tuple[str, str | None, str]] = set()
    machines: dict[str, int] = {}
    listed = list(cells)
    for cell in sorted(listed, key=lambda cell: not history.is_surprising(cell)):
        kind = (cell.suite.name, cell.expected.cause, cell.guest.name.partition("-")[0])
        ranks[cell.folder] = 0 if history.is_surprising(cell) else 2 if kind in met else 1
        met.add(kind)
        machines.setdefault(cell.machine.name, len(machines))
    return sorted(listed, key=lambda cell: (ranks[cell.folder], machines[cell.machine.name]))


def describe_rest(left: Sequence[Cell], history: PastOutcomes) -> str:
    """Say what a budget left, and how likely that would have said something new; empty if nothing is left."""
    if not left:
        return ""
    counts = [history.changes(cell) for cell in left]
    changed, compared = (sum(numbers) for numbers in zip(*counts, strict=True))
    likely = f"{changed} of {compared} times" if compared else "unknown, no two earlier runs have them"
    guests = ", ".join(dict.fromkeys(cell.guest.name for cell in left))
    return (
        f"--within left {len(left)} cell{'s' * (len(left) > 1)} of {guests}; "
        f"how often these did something new before: {likely}"
    )


def _place(cell: Cell) -> Place:
    return cell.guest.name, cell.variant.name, cell.suite.name


def _differs(prediction: Prediction, expected: Expectation) -> bool:
    match prediction.says:
        case Foreseen.UNKNOWN:
            return False
        case Foreseen.WORKS:
            return expected.cause is not None
    return expected.cause is None or prediction.cause not in (None, expected.cause)
