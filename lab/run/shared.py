"""What all workers of a run share."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.lane.running import Work
from lab.record import RunOptions
from lab.run.backlog import Backlog
from lab.run.decisions import Decisions
from lab.run.journal import Journal
from lab.run.meter import Meter
from lab.run.observer import Observer
from lab.trials.policy import Policy


@dataclass(frozen=True)
class Shared:
    """What all workers of a run share. `ended` tells whether no further cell is to be begun.

    `wake` has the scheduler look again whether another lane is worth its start. `on_bug` gets what is the error
    of no cell.
    """

    work: Work
    uri: str
    options: RunOptions
    policy: Policy
    journal: Journal
    backlog: Backlog
    observer: Observer
    decisions: Decisions
    ended: Callable[[], bool]
    wake: Callable[[], None]
    on_bug: Callable[[Exception], None]
    meter: Meter
