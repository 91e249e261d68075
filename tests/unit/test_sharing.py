"""Trials of a cell that its own lane and a helper make."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.machine.lane import LaneDied
from lab.trials.remedies import Offer, Share, on_one_lane
from tests.builders.facts import facts
from tests.builders.guests import FakeRunner

OWN, HELPER = "own", "helper"


class Lane(FakeRunner):
    def __init__(self, name: str) -> None:
        super().__init__(Path(), facts())
        self.name = name


def unwanted(error: Exception) -> None:
    raise AssertionError(f"no fault was expected: {error}")


def test_on_one_lane_trials_come_one_after_another() -> None:
    made: list[str] = []

    def make(runner: Any, name: str) -> str:
        made.append(f"{name} on {runner.name}")
        return name

    lane: Any = Lane(OWN)
    share: Share[str] = on_one_lane(lane)
    assert share([partial(make, name="a"), partial(make, name="b")]) == ["a", "b"]
    assert made == ["a on own", "b on own"]


def together(
    offer: Offer[str], helper: Lane, on_fault: Callable[[Exception], None] = unwanted
) -> tuple[list[str], BaseException | None]:
    """What came of the trials, and how the helper ended."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            while offer.is_open:
                offer.help_once(helper, on_fault)  # type: ignore[arg-type]  # a stand-in
        except LabError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    own: Any = Lane(OWN)
    found = offer.finish(own)
    thread.join(20)
    assert not thread.is_alive()
    return found, next(iter(ended), None)


def test_the_results_come_in_the_order_of_the_trials_whoever_made_them() -> None:
    both = threading.Barrier(2, timeout=20)
    lanes: list[str] = []

    def task(number: int) -> Callable[[Any], str]:
        def make(runner: Any) -> str:
            lanes.append(runner.name)
            if number < 2:
                both.wait()
            return f"{number}"

        return make

    found, ended = together(Offer([task(number) for number in range(5)]), Lane(HELPER))
    assert found == ["0", "1", "2", "3", "4"] and ended is None
    assert {OWN, HELPER} == set(lanes) and len(lanes) == 5


@pytest.mark.parametrize("raises", [True, False])
def test_a_trial_whose_helper_died_is_made_again_by_the_cells_own_lane(raises: bool) -> None:
    helper = Lane(HELPER)
    faults: list[str] = []
    begun = threading.Event()

    def make(runner: Any) -> str:
        if runner is not helper:
            assert begun.wait(20)
            return "made"
        begun.set()
        helper.alive = False
        if raises:
            raise LaneDied("the machine is gone")
        # What a trial makes of the fault, which says nothing.
        return "error: the machine is gone"

    found, ended = together(Offer([make, make, make]), helper, lambda error: faults.append(str(error)))
    assert found == ["made"] * 3
    assert isinstance(ended, LaneDied) and [fault.splitlines()[0] for fault in faults] == [
        "the machine is gone"
    ]


def test_when_the_cells_own_lane_is_given_up_nobody_begins_another_trial() -> None:
    def make(_runner: Any) -> str:
        raise LaneDied("given up")

    offer = Offer([make, make])
    own: Any = Lane(OWN)
    with pytest.raises(LaneDied):
        offer.finish(own)
    assert not offer.is_open
    helper: Any = Lane(HELPER)
    offer.help_once(helper, unwanted)


@pytest.mark.parametrize("on_fault", [lambda _error: None, unwanted])
def test_a_bug_in_a_helper_does_not_leave_the_cells_own_lane_waiting(
    on_fault: Callable[[Exception], None],
) -> None:
    helper = Lane(HELPER)
    begun = threading.Event()
    bugs: list[BaseException] = []

    def make(runner: Any) -> str:
        if runner is helper:
            begun.set()
            raise KeyError("a bug")
        assert begun.wait(20)
        return "made"

    offer = Offer([make, make])

    def work() -> None:
        try:
            offer.help_once(helper, on_fault)  # type: ignore[arg-type]  # a stand-in
        except (KeyError, AssertionError) as error:
            bugs.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    own: Any = Lane(OWN)
    assert offer.finish(own) == ["made", "made"]
    thread.join(20)
    assert len(bugs) == 1
