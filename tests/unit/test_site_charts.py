"""The chart of a run's time: its figures are those of the record."""

from datetime import UTC, datetime, timedelta

import pytest

from lab.base.activity import Activity
from lab.record import LaneStep
from lab.report.site.charts import MOST_TICKS, duration, ticks, timelines
from tests.builders.cells import cell
from tests.builders.runs import run_of

STARTED = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)


def step(lane: str, activity: Activity, start: float, seconds: float, text: str = "") -> LaneStep:
    began = STARTED + timedelta(seconds=start)
    return LaneStep(lane=lane, activity=activity, text=text or activity, began=began, seconds=seconds)


STEPS = [
    step("debian-13", Activity.START, 2, 30),
    step("debian-13 #2", Activity.START, 41, 89),
    step("debian-13", Activity.SUITE, 44, 60, "stock: running the suite"),
    step("debian-13", Activity.TRIALS, 105, 5),
    step("debian-13", Activity.TRIALS, 110, 10),
]
LATER = [step.model_copy(update={"began": step.began + timedelta(hours=2)}) for step in STEPS]


def test_a_timeline_has_a_row_for_each_lane_from_the_first_step_on() -> None:
    [line] = timelines(run_of(steps=STEPS[::-1]).run)
    assert line.began == STARTED + timedelta(seconds=2)
    assert {
        lane: [(step.activity, line.start(step), line.end(step)) for step in steps]
        for lane, steps in line.lanes.items()
    } == {
        "debian-13": [
            (Activity.START, 0, 30),
            (Activity.SUITE, 42, 102),
            (Activity.TRIALS, 103, 108),
            (Activity.TRIALS, 108, 118),
        ],
        "debian-13 #2": [(Activity.START, 39, 128)],
    }
    assert line.sums("debian-13") == {Activity.START: 30, Activity.SUITE: 60, Activity.TRIALS: 15}
    assert (line.length, line.percent(64)) == (128, 50)
    assert line.activities == [Activity.START, Activity.SUITE, Activity.TRIALS]
    # The lanes of a host stand together.
    names = ["one: debian-13", "two: debian-13", "one: debian-13 #2"]
    [line] = timelines(run_of(steps=[step(name, Activity.SUITE, at, 1) for at, name in enumerate(names)]).run)
    assert list(line.lanes) == ["one: debian-13", "one: debian-13 #2", "two: debian-13"]


def test_each_session_has_a_timeline_and_so_has_each_shard_of_a_merged_run() -> None:
    resumed = STARTED + timedelta(hours=2)
    run = run_of(steps=[*STEPS, *LATER], resumed=[resumed]).run
    first, second = timelines(run)
    assert (first.title, second.title) == (f"Run {run.id}", f"Run {run.id}, resumed")
    assert second.began - first.began == timedelta(hours=2)
    assert [first.sums(lane) for lane in first.lanes] == [second.sums(lane) for lane in second.lanes]
    parts = [run.model_copy(update={"steps": STEPS, "resumed": [], "id": name}) for name in ("one", "two")]
    merged = run.model_copy(update={"steps": LATER, "merged": parts, "id": "both"})
    assert [line.title for line in timelines(merged)] == ["Run one", "Run two", "Run both, resumed"]
    assert timelines(run_of(cell()).run) == []


@pytest.mark.parametrize("end", [0.0, 0.3, 7.0, 59.0, 61.0, 3599.0, 90000.0, 1e7])
def test_an_axis_has_few_round_ticks_that_lie_on_it(end: float) -> None:
    times = ticks(end)
    assert 1 <= len(times) <= MOST_TICKS and times[0] == 0
    assert all(0 <= at <= end for at in times)
    assert len({duration(at) for at in times}) == len(times)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_seconds_are_said_in_the_units_that_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text
