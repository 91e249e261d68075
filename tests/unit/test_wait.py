import threading

import pytest

from lab.base.errors import LabError
from lab.base.wait import Deadline, DeadlineExpired, call_within, wait_for

LONG = 60.0


def test_a_deadline_expires_when_its_time_is_up() -> None:
    deadline = Deadline(LONG, "rain")
    deadline.check()
    assert 0 < deadline.remaining <= LONG
    assert Deadline(0, "rain").remaining == 0.0
    with pytest.raises(DeadlineExpired, match="waited 0 s for rain"):
        Deadline(0, "rain").check()


def test_waiting_ends_with_the_first_result_even_a_false_one() -> None:
    results = iter([None, None, 0])
    assert wait_for(lambda: next(results), Deadline(LONG, "a number"), interval=0) == 0


def test_something_that_has_happened_counts_though_the_time_is_up() -> None:
    assert wait_for(lambda: "rain", Deadline(0, "rain")) == "rain"


def test_waiting_in_vain_names_what_was_waited_for() -> None:
    with pytest.raises(DeadlineExpired, match="for the guest's SSH server"):
        wait_for(lambda: None, Deadline(0.01, "the guest's SSH server"), interval=0.001)


def test_the_death_of_the_guest_ends_the_wait_at_once() -> None:
    attempts: list[int] = []

    def alive() -> None:
        if len(attempts) == 2:
            raise LabError("the guest died")

    with pytest.raises(LabError, match="the guest died"):
        wait_for(lambda: attempts.append(1), Deadline(LONG, "rain"), alive=alive, interval=0)
    assert len(attempts) == 2


def test_a_call_that_returns_gives_its_result_or_its_error() -> None:
    assert call_within(lambda: 7, Deadline(20, "seven")) == 7

    def fail() -> None:
        raise KeyError("no seven")

    with pytest.raises(KeyError, match="no seven"):
        call_within(fail, Deadline(20, "seven"))


def test_a_call_that_never_returns_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(DeadlineExpired, match="waited 0 s for an answer"):
        call_within(lambda: never.wait(20), Deadline(0.05, "an answer"))
    never.set()
