import threading

import pytest

from lab.base.errors import LabError
from lab.base.wait import ORDINARY, Deadline, DeadlineExpired, Speed, call_within, measure_load, wait_for

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
    # Something that has happened counts though the time is up.
    assert wait_for(lambda: "rain", Deadline(0, "rain")) == "rain"
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


SLOWER = "this host boots a kernel {} times slower than ordinary hardware with KVM"
AS_FAST = "this host boots a kernel as fast as ordinary hardware with KVM"


@pytest.mark.parametrize(
    ("speed", "factor"),
    [
        (Speed(emulated=True), 10.0),
        # No measurement makes a limit shorter: the host may be busier later.
        (Speed(emulated=False, kernel_seconds=0.1), 1.0),
        (Speed(emulated=True, kernel_seconds=0.6), 10.0),
        (Speed(emulated=False, kernel_seconds=6.0), 12.0),
        (Speed(emulated=True, kernel_seconds=20.0), 40.0),
        (Speed(emulated=True, kernel_seconds=20.0, more=4.0), 160.0),
        (Speed(emulated=True, busy=5.0), 50.0),
    ],
)
def test_limits_are_stretched_by_what_was_measured_and_never_shortened(speed: Speed, factor: float) -> None:
    assert speed.from_kvm(30.0) == pytest.approx(30.0 * factor)
    # Limits that suffice for emulation are stretched by what is slower than that.
    assert speed.from_emulation(90.0) == pytest.approx(90.0 * max(1.0, factor / 10))


def test_a_limit_that_the_guest_keeps_is_in_seconds_of_its_own_clock() -> None:
    speed = Speed(emulated=True, clock=0.1)
    assert (speed.from_kvm(45.0), speed.in_guest(45.0)) == (450.0, 45.0)
    assert Speed(emulated=True, clock=0.1, busy=4.0).in_guest(45.0) == 180.0
    assert ORDINARY.in_guest(45.0) == 45.0


def test_how_many_programs_want_a_processor_is_never_less_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, busy in ((0.2, 1.0), (2.0, 1.0), (9.0, 4.5)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert measure_load() == busy


def test_kvm_on_a_slow_host_is_as_slow_as_emulation() -> None:
    assert not ORDINARY.is_slow and not Speed(emulated=False, kernel_seconds=1.5).is_slow
    assert Speed(emulated=False, kernel_seconds=6.0).is_slow and Speed(emulated=True).is_slow


@pytest.mark.parametrize(
    ("speed", "words"),
    [
        (Speed(emulated=False, kernel_seconds=6.0), SLOWER.format(12)),
        (Speed(emulated=True, kernel_seconds=5.2), f"{SLOWER.format(10)} (software emulation)"),
        (Speed(emulated=False, kernel_seconds=0.7), AS_FAST),
        (
            Speed(emulated=True, kernel_seconds=5.2, busy=4.5),
            f"{SLOWER.format(10)} (software emulation), and 4 programs wanted each of its processors",
        ),
        (ORDINARY, "this host's speed is not known"),
        (Speed(emulated=True), "this host's speed is not known (software emulation)"),
    ],
)
def test_a_limit_that_is_met_says_what_for_how_long_and_at_what_speed(speed: Speed, words: str) -> None:
    deadline = speed.deadline(0.0, "the guest's SSH server")
    with pytest.raises(DeadlineExpired) as met:
        wait_for(lambda: None, deadline)
    assert str(met.value) == f"waited 0 s for the guest's SSH server; {words}"
    assert speed.deadline(30.0, "SSH").seconds == speed.from_kvm(30.0)
