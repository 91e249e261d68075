"""What a run tells whoever shows it; reports are observers, and the run knows nothing of them."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from lab.base.activity import Activity, Progress
from lab.base.files import clean_text, cut_text
from lab.images.store import BaseImage
from lab.plan import Cell
from lab.record import CellResult, LaneStep, Prediction

# Longest text of a step in the record, in characters.
LONGEST_STEP = 300


class Observer:
    """What a run tells whoever shows it. Called from several threads. This one shows nothing."""

    def lane(self, lane: str, progress: Progress | None) -> None:
        """What a lane does now; None when the lane is done.

        `lane` is its guest, numbered from the second one on.
        """

    def prediction(self, cell: Cell, prediction: Prediction) -> None:
        """What the probes alone expect of a cell that is not decided yet."""

    def cell(self, result: CellResult) -> None:
        """A cell is decided."""

    def note(self, text: str) -> None:
        """Something to show once."""

    def time_left(self, seconds: float | None) -> None:
        """An estimate of how long the rest will take, in seconds; None if that cannot be told."""

    def image(self, image: BaseImage) -> None:
        """What a lane starts from, before it does."""


class LaneSteps(Observer):
    """Gives the steps of lanes to `keep`, each when it has ended: for the record."""

    def __init__(self, keep: Callable[[LaneStep], None]) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        # By lane: what it does since when, and whether that is part of a trial.
        self._current: dict[str, tuple[LaneStep, bool]] = {}

    def lane(self, lane: str, progress: Progress | None) -> None:
        time_stamp, name = (
            datetime.now(UTC),
            cut_text(clean_text(progress.name), LONGEST_STEP) if progress else "",
        )
        with self._lock:
            step, in_trial = self._current.pop(lane, (None, False))
            if step and step.text == name:
                self._current[lane] = step, in_trial
                return
            if step:
                seconds = max(0.0, round((time_stamp - step.began).total_seconds(), 3))
                self._keep(step.with_values(seconds=seconds))
            if not progress or not name:
                return
            activity = progress.activity or (step.activity if step else Activity.OTHER)
            # A trial runs the suite again, up to the next cell of the lane.
            in_trial = activity is Activity.TRIALS or (in_trial and activity is not Activity.SETUP)
            if in_trial and activity is not Activity.WAITING:
                activity = Activity.TRIALS
            step = LaneStep(lane=lane, activity=activity, text=name, began=time_stamp, seconds=0)
            self._current[lane] = step, in_trial


class JoinedObserver(Observer):
    """Passes everything on to several observers. Their exceptions go to `on_bug`, if it is given."""

    def __init__(self, *observers: Observer, on_bug: Callable[[Exception], None] | None = None) -> None:
        self._observers, self._on_bug = observers, on_bug

    def lane(self, lane: str, progress: Progress | None) -> None:
        self._for_each(lambda observer: observer.lane(lane, progress))

    def prediction(self, cell: Cell, prediction: Prediction) -> None:
        self._for_each(lambda observer: observer.prediction(cell, prediction))

    def cell(self, result: CellResult) -> None:
        self._for_each(lambda observer: observer.cell(result))

    def note(self, text: str) -> None:
        self._for_each(lambda observer: observer.note(text))

    def time_left(self, seconds: float | None) -> None:
        self._for_each(lambda observer: observer.time_left(seconds))

    def image(self, image: BaseImage) -> None:
        self._for_each(lambda observer: observer.image(image))

    def _for_each(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception as error:
                if self._on_bug is None:
                    raise
                self._on_bug(error)
