"""What hosts say of their processors, and what the record of their run has of it."""

from typing import Any

import pytest

from lab.fleet.spending import Reading, Spending
from lab.record import ProcessorTime

SAID: dict[str, Any] = {"session": "a", "processors": 2, "wall": 100.0, "lab": 5.0, "idle": 30.0}


def reading(**update: Any) -> Reading:
    made = Reading.read(SAID | update)
    assert made is not None
    return made


def session(host: str, **update: Any) -> ProcessorTime:
    measured = {"processors": 2, "wall": 100.0, "lanes": 0.0, "lab": 5.0, "idle": 30.0}
    return ProcessorTime.model_validate({"host": host, **measured, **update})


def test_lanes_are_added_up_and_the_last_reading_has_the_rest() -> None:
    spending = Spending()
    spending.add("one", reading(wall=50.0, lab=2.0, idle=10.0))
    spending.add("one", reading(wall=50.0, lab=2.0, idle=10.0), 40.0)
    spending.add("two", reading(session="b"), 7.0)
    spending.add("one", reading(), 41.5)
    assert spending.sessions() == [session("one", lanes=81.5), session("two", lanes=7.0)]


def test_a_reading_that_comes_late_does_not_undo_a_later_one() -> None:
    spending = Spending()
    spending.add("one", reading())
    spending.add("one", reading(wall=50.0, lab=2.0, idle=10.0), 40.0)
    assert spending.sessions() == [session("one", lanes=40.0)]


def test_a_host_that_joins_again_has_a_session_more() -> None:
    spending = Spending()
    spending.add("one", reading(), 10.0)
    spending.add("one", reading(session="later", wall=20.0), 1.0)
    assert spending.sessions() == [session("one", lanes=10.0), session("one", wall=20.0, lanes=1.0)]


def test_what_lanes_say_that_cannot_be_does_not_end_the_run() -> None:
    spending = Spending()
    spending.add("one", reading(), 1e9)
    spending.add("one", reading(), 1e9)
    assert spending.sessions() == [session("one", lanes=1e9)]


def test_of_a_host_that_measured_nothing_nothing_is_said() -> None:
    spending = Spending()
    spending.add("one", None, 40.0)
    assert spending.sessions() == []


@pytest.mark.parametrize(
    "said",
    [
        None,
        "much",
        {},
        SAID | {"idle": -1.0},
        SAID | {"wall": float("inf")},
        SAID | {"lab": float("nan")},
        SAID | {"processors": 0},
        SAID | {"session": "a" * 65},
        SAID | {"more": 1},
    ],
)
def test_what_is_no_reading_is_none(said: Any) -> None:
    assert Reading.read(said) is None


def test_a_host_sends_what_it_measured() -> None:
    measured = ProcessorTime(processors=2, wall=100.0, lanes=0.0, lab=5.0, idle=30.0)
    assert Reading.read(Reading.of("a", measured).model_dump()) == reading()
