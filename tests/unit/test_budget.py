import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from lab.base.wait import Deadline, wait_for
from lab.lane.guest import holding
from lab.machine.acceleration import Acceleration
from lab.machine.budget import QEMU_OVERHEAD_MIB, RESERVE_MIB, Memory, Processors

GUEST = 2048
LANE = GUEST + QEMU_OVERHEAD_MIB


class Host:
    """A host whose free memory a test sets."""

    def __init__(self, available: int) -> None:
        self.available = available

    def memory(self, limit: int | None = None) -> Memory:
        return Memory(limit, available=lambda: self.available)


def test_lanes_are_admitted_up_to_the_limit_and_the_next_one_is_told_why_not() -> None:
    memory = Host(64_000).memory(limit=2 * LANE + 100)
    assert memory.admit(GUEST) == ""
    assert memory.admit(GUEST) == ""
    assert memory.admit(GUEST) == "a lane needs 3072 MiB of memory, and 100 of the 6244 MiB for lanes are left"


def test_a_lane_that_ends_gives_its_memory_back() -> None:
    memory = Host(64_000).memory(limit=LANE)
    for _ in range(3):
        assert memory.admit(GUEST) == ""
        assert memory.admit(GUEST) != ""
        memory.release(GUEST)


def test_a_lane_that_was_refused_has_taken_nothing() -> None:
    memory = Host(64_000).memory(limit=LANE)
    assert memory.admit(2 * GUEST) != ""
    assert memory.admit(GUEST) == ""


@pytest.mark.parametrize(("available", "lanes"), [(2 * LANE + RESERVE_MIB, 2), (2 * LANE + RESERVE_MIB - 1, 1)])
def test_without_a_limit_lanes_have_all_but_the_hosts_reserve(available: int, lanes: int) -> None:
    # What is available does not shrink here: guests that were just started have not used theirs yet.
    memory = Host(available).memory()
    assert [memory.admit(GUEST) == "" for _ in range(3)] == [number < lanes for number in range(3)]


def test_a_limit_above_what_the_host_has_does_not_take_its_reserve() -> None:
    memory = Host(LANE + RESERVE_MIB).memory(limit=64_000)
    assert memory.admit(GUEST) == ""
    # Another one would have the first one's memory, which that has not used yet.
    assert memory.admit(GUEST) != ""


def test_memory_that_another_program_took_is_waited_for() -> None:
    host = Host(64_000)
    memory = host.memory()
    host.available = LANE + RESERVE_MIB - 1
    assert memory.admit(GUEST) == (
        "a lane needs 3072 MiB of memory in addition to 1024 MiB for the host, and only 4095 MiB are available"
    )
    host.available += 1
    assert memory.admit(GUEST) == ""


class Crowd:
    """Threads that each want a turn, and the order in which they got it."""

    def __init__(self, processors: Processors) -> None:
        self.processors = processors
        self.order: list[str] = []
        self.waited: list[str] = []
        self._threads: list[threading.Thread] = []

    def want(self, name: str, count: int, inside: Callable[[], object] = lambda: None) -> None:
        """Begin a thread, and go on when it stands in the queue or has had its turn."""
        came = threading.Event()

        def on_wait() -> None:
            self.waited.append(name)
            came.set()

        def work() -> None:
            with self.processors.hold(count, on_wait):
                self.order.append(name)
                came.set()
                inside()

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()
        assert came.wait(20)

    def end(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def test_turns_are_first_come_first_served_whatever_their_size() -> None:
    processors = Processors(2)
    crowd = Crowd(processors)
    with processors.hold(1):
        crowd.want("large", 2)
        # One processor is free, but the large one was there before: small ones must not starve it.
        crowd.want("small", 1)
        crowd.want("last", 2)
        assert crowd.order == []
    crowd.end()
    assert crowd.order == ["large", "small", "last"]
    assert crowd.waited == crowd.order


def test_as_many_have_a_turn_as_there_are_processors_for() -> None:
    processors = Processors(3)
    crowd = Crowd(processors)
    with ExitStack() as two:
        two.enter_context(processors.hold(2))
        with processors.hold(1):
            crowd.want("two", 2)
        # One is free again, which is not enough.
        assert crowd.order == []
        two.close()
        crowd.end()
    assert crowd.order == ["two"]


def test_nobody_is_said_to_wait_where_there_is_a_processor() -> None:
    crowd = Crowd(Processors(2))
    crowd.want("alone", 2)
    crowd.end()
    assert (crowd.order, crowd.waited) == (["alone"], [])


def test_a_claim_for_more_than_there_is_gets_all_and_gives_back_no_more() -> None:
    processors = Processors(2)
    crowd = Crowd(processors)
    go = threading.Event()
    crowd.want("all", 16, lambda: go.wait(20))
    assert crowd.order == ["all"]
    crowd.want("other", 1)
    assert crowd.order == ["all"]
    go.set()
    crowd.end()
    # Had it given 16 back, a third one would not have to wait.
    with processors.hold(2):
        crowd.want("third", 1)
        assert crowd.order == ["all", "other"]
    crowd.end()


def test_a_turn_that_ends_in_an_error_is_given_back() -> None:
    processors = Processors(1)
    with pytest.raises(RuntimeError), processors.hold(1):
        raise RuntimeError("the guest died")
    crowd = Crowd(processors)
    crowd.want("next", 1)
    crowd.end()
    assert (crowd.order, crowd.waited) == (["next"], [])


def test_one_that_gives_up_waiting_is_in_nobodys_way() -> None:
    processors = Processors(1)
    crowd = Crowd(processors)

    def give_up() -> None:
        raise RuntimeError("interrupted")

    with processors.hold(1):
        with pytest.raises(RuntimeError), processors.hold(1, give_up):
            raise AssertionError("there was no turn to have")
        crowd.want("next", 1)
    crowd.end()
    assert crowd.order == ["next"]


def test_what_runs_alone_waits_for_all_processors_and_nobody_joins_it() -> None:
    processors, said = Processors(2), list[str]()
    emulated = Acceleration(False, "a test")
    begun, ended = threading.Event(), threading.Event()

    def alone() -> None:
        with holding(processors, "alone", how=emulated, say=said.append, alone=True):
            begun.set()
            ended.wait(20)

    with holding(processors, "first", how=emulated, say=said.append):
        thread = threading.Thread(target=alone)
        thread.start()
        wait_for(lambda: len(said) > 1 or None, Deadline(20, "it to wait"))
        assert not begun.is_set()
    assert begun.wait(20)
    assert processors._free == 0
    ended.set()
    thread.join()
    assert said == ["first", "waiting until no other lane is at work", "alone"]
    with holding(Processors(1), "KVM", how=Acceleration(True, ""), say=said.append, alone=True):
        assert said[-1] == "KVM"
