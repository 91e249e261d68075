"""Time per step against the run before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from lab.record import Host, RunResult
from lab.site.charts.kinds import CELL_STEPS, LANE_STEPS
from lab.site.charts.scale import Scale

# Steps in the order in which a lane goes through them.
ORDER = [*LANE_STEPS, *CELL_STEPS]

Seconds = Mapping[str, Mapping[tuple[str, ...], float]]


@dataclass(frozen=True)
class StepTime:
    """The median seconds of one step in two runs, over the `count` guests or cells that both have.

    `of` says which: guest or cell.
    """

    step: str
    of: str
    count: int
    before: float
    now: float

    @property
    def compared(self) -> str:
        """How many guests or cells were compared."""
        return f"{self.count} {self.of}{'s' if self.count != 1 else ''}"

    @property
    def change(self) -> int | None:
        """Return how much longer the step takes now, in percent; None if it took no time before."""
        return round(100 * (self.now - self.before) / self.before) if self.before else None


@dataclass(frozen=True)
class StepTimes:
    """The steps of two runs side by side; `before` and `now` are the names of the runs."""

    before: str
    now: str
    steps: list[StepTime]

    @property
    def scale(self) -> Scale:
        return Scale(max((max(step.before, step.now) for step in self.steps), default=0.0))


def step_times(before: RunResult, now: RunResult) -> StepTimes:
    """Compare the steps of cells and lanes that both runs have.

    A lane that restored a stored state is not compared with one that booted: it is another step. Nothing
    is compared between hosts that are not alike.
    """
    old, new = _seconds(before), _seconds(now)
    steps = [each for step in ORDER if (each := _compare(step, old.get(step, {}), new.get(step, {})))]
    return StepTimes(before.run.id, now.run.id, steps)


def _compare(
    step: str, old: Mapping[tuple[str, ...], float], new: Mapping[tuple[str, ...], float]
) -> StepTime | None:
    both = old.keys() & new.keys()
    if not both:
        return None
    of = "cell" if step in CELL_STEPS else "guest"
    return StepTime(step, of, len(both), _median(old[key] for key in both), _median(new[key] for key in both))


def _median(values: Iterable[float]) -> float:
    return round(median(values), 2)


def _seconds(run: RunResult) -> Seconds:
    """Return the seconds per step, by cell or, for the steps of lanes, by guest and way of starting."""
    cells: dict[str, dict[tuple[str, ...], float]] = {step: {} for step in ORDER}
    for cell in run.cells:
        host = _kind(run.run.hosts(cell.guest, cell.lane))
        for step in CELL_STEPS.keys() & cell.seconds.keys():
            cells[step][cell.guest, cell.variant, cell.build, cell.fork, host] = cell.seconds[step]
    lanes: dict[str, dict[tuple[str, ...], list[float]]] = {step: {} for step in LANE_STEPS}
    for lane in run.run.lanes:
        host = _kind(run.run.hosts(lane.guest, lane.label))
        key = (lane.guest, str(lane.restored), str(lane.stored_build), host)
        for step in LANE_STEPS.keys() & lane.seconds.keys():
            lanes[step].setdefault(key, []).append(lane.seconds[step])
    return cells | {step: {key: median(found) for key, found in each.items()} for step, each in lanes.items()}


def _kind(hosts: Iterable[Host]) -> str:
    """What hosts of about the same speed have in common."""
    found = {f"{host.cpus} {round(host.memory_mib / 1024)} {host.acceleration}" for host in hosts}
    return ", ".join(sorted(found))
