"""The names of lanes in a run: that of the machine, with a number from its second lane on."""

from collections import Counter
from collections.abc import Iterable

from lab.record import LaneRecord, RunResult

NUMBERED = " #"


class Labels:
    """Gives each lane of a run a label of its own, and counts on from the lanes that are there already."""

    def __init__(self, lanes: Iterable[LaneRecord] = ()) -> None:
        self._last: Counter[str] = Counter()
        for lane in lanes:
            machine, number = _parts(lane.label)
            self._last[machine] = max(self._last[machine], number)

    def next(self, machine: str) -> str:
        """The label of the machine's next lane."""
        self._last[machine] += 1
        number = self._last[machine]
        return machine if number == 1 else f"{machine}{NUMBERED}{number}"


def relabelled(runs: Iterable[RunResult]) -> list[RunResult]:
    """The runs as parts of one: no label is in two of them, and each lane says by itself what it ran on."""
    labels = Labels()
    return [_relabelled(run, labels) for run in runs]


def _relabelled(run: RunResult, labels: Labels) -> RunResult:
    # A lane that did not come up has no record, but its label is with its cells.
    used = dict.fromkeys(
        [*(lane.label for lane in run.run.lanes), *(name for each in run.cells for name in each.lanes)]
    )
    new = {label: labels.next(_parts(label)[0]) if label else "" for label in used}
    lanes = [
        lane.model_copy(update={"label": new[lane.label], "host": lane.host or run.run.host})
        for lane in run.run.lanes
    ]
    cells = [
        cell.model_copy(update={"lane": new[cell.lane], "trials_lane": new[cell.trials_lane]})
        for cell in run.cells
    ]
    return RunResult(run=run.run.model_copy(update={"lanes": lanes}), cells=cells)


def _parts(label: str) -> tuple[str, int]:
    machine, _, number = label.partition(NUMBERED)
    return machine, int(number) if number.isdecimal() else 1
