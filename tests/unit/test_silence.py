"""Which hosts have said nothing for how long, whatever clocks do."""

import time

import pytest

from lab.fleet.silence import MOST_SECONDS, Silences, Watch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def seconds(silences: Silences, clock: list[float], last: dict[str, float], looks: int = 1) -> dict[str, float]:
    for _ in range(looks):
        clock[0] += 1.0
        silences.look(last)
    return silences.seconds


def test_a_host_that_says_nothing_is_silent_for_as_long_as_it_was_listened_to(clock: list[float]) -> None:
    silences = Silences()
    assert seconds(silences, clock, {"one": 5.0, "two": 5.0}) == {"one": 0.0, "two": 0.0}
    assert seconds(silences, clock, {"one": 5.0, "two": 6.0}) == {"one": 1.0, "two": 0.0}
    assert seconds(silences, clock, {"one": 5.0}, looks=60) == {"one": 61.0}
    assert seconds(silences, clock, {"one": 5.5}) == {"one": 0.0}


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_the_time_of_day_does_not_count(clock: list[float], jump: float) -> None:
    silences = Silences()
    seconds(silences, clock, {"one": 5.0, "two": 5.0})
    # One has spoken since the clock was set, two has not.
    assert seconds(silences, clock, {"one": 6.0 + jump, "two": 5.0}) == {"one": 0.0, "two": 1.0}
    # And a host that is lost after that is found as soon as ever.
    assert seconds(silences, clock, {"one": 6.0 + jump}, looks=60) == {"one": 60.0}


def test_a_process_that_stood_still_has_not_listened(clock: list[float]) -> None:
    silences, watch = Silences(), Watch()
    seconds(silences, clock, {"one": 5.0}, looks=10)
    watch.passed()
    clock[0] += 3600.0
    silences.look({"one": 5.0})
    assert silences.seconds == {"one": 9.0 + MOST_SECONDS}
    assert watch.passed() == MOST_SECONDS
    clock[0] += 0.5
    assert watch.passed() == 0.5


def test_a_host_that_joins_again_has_just_spoken(clock: list[float]) -> None:
    silences = Silences()
    seconds(silences, clock, {"one": 5.0}, looks=10)
    assert seconds(silences, clock, {}) == {}
    assert seconds(silences, clock, {"one": 5.0}) == {"one": 0.0}
