import threading
from collections.abc import Callable

import pytest

from lab.base.activity import Progress
from lab.base.wait import Deadline, wait_for
from lab.machine.acceleration import Acceleration
from lab.machine.budget import QEMU_OVERHEAD_MIB, RESERVE_MIB, Memory, Processors, occupy_processor
from tests.builders.guests import task_to

GUEST = 2048
LANE = GUEST + QEMU_OVERHEAD_MIB


@pytest.mark.parametrize(
    ("available", "limit", "lanes"),
    [
        (64_000, 2 * LANE + 100, 2),
        # Without a limit lanes have all but the host's reserve. What is available does not shrink here: guests
        # that were just started have not used theirs yet.
        (2 * LANE + RESERVE_MIB, None, 2),
        (2 * LANE + RESERVE_MIB - 1, None, 1),
        # A limit above what the host has does not take its reserve.
        (LANE + RESERVE_MIB, 64_000, 1),
    ],
)
def test_lanes_take_memory_that_there_is_and_return_it(available: int, limit: int | None, lanes: int) -> None:
    memory = Memory(limit, available=lambda: available)
    for _ in range(2):
        assert [memory.admit(GUEST) == "" for _ in range(3)] == [number < lanes for number in range(3)]
        memory.release(GUEST)
        # One that is refused has taken nothing.
        assert memory.admit(64_000) != ""
        for _ in range(lanes - 1):
            memory.release(GUEST)


def test_why_a_lane_is_not_admitted_is_told() -> None:
    free = [64_000]
    memory = Memory(2 * LANE + 100, available=lambda: free[0])
    # Another program took memory that was free when the limit was set.
    free[0] = LANE + RESERVE_MIB - 1
    assert memory.admit(GUEST) == (
        "a lane needs 3072 MiB of memory in addition to 1024 MiB for the host, and only 4095 MiB are available"
    )
    free[0] += 1
    assert (memory.admit(GUEST), memory.admit(GUEST)) == ("", "")
    assert memory.admit(GUEST) == "a lane needs 3072 MiB of memory, and 100 of the 6244 MiB for lanes are left"


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
    assert crowd.order == crowd.waited == ["large", "small", "last"]


def test_a_claim_for_more_than_there_is_gets_all_and_gives_back_no_more() -> None:
    processors = Processors(2)
    crowd = Crowd(processors)
    go = threading.Event()
    crowd.want("all", 16, lambda: go.wait(20))
    crowd.want("other", 1)
    assert crowd.order == ["all"]
    go.set()
    crowd.end()
    # Had it given 16 back, a third one would not have to wait.
    with processors.hold(2):
        crowd.want("third", 1)
        assert crowd.order == ["all", "other"]
    crowd.end()


def test_one_that_fails_or_gives_up_waiting_is_in_nobody_s_way() -> None:
    processors = Processors(1)
    crowd = Crowd(processors)

    def give_up() -> None:
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError), processors.hold(1):
        raise RuntimeError("the guest died")
    with processors.hold(1):
        with pytest.raises(RuntimeError), processors.hold(1, give_up):
            raise AssertionError("there was no turn to have")
        crowd.want("next", 1)
    crowd.end()
    # Nobody waits where there is a processor.
    crowd.want("last", 1)
    crowd.end()
    assert (crowd.order, crowd.waited) == (["next", "last"], ["next"])


def test_what_runs_alone_waits_for_all_processors_and_nobody_joins_it() -> None:
    processors, texts = Processors(2), list[str]()
    show = task_to(texts).show
    emulated = Acceleration(False, "a test")
    begun, ended = threading.Event(), threading.Event()

    def alone() -> None:
        with occupy_processor(processors, Progress("alone"), acceleration=emulated, show=show, alone=True):
            begun.set()
            ended.wait(20)

    with occupy_processor(processors, Progress("first"), acceleration=emulated, show=show):
        thread = threading.Thread(target=alone)
        thread.start()
        wait_for(lambda: len(texts) > 1 or None, Deadline(20, "it to wait"))
        assert not begun.is_set()
    assert begun.wait(20)
    assert processors.free == 0
    ended.set()
    thread.join()
    assert texts == ["first", "waiting until no other lane is at work", "alone"]
    with occupy_processor(
        Processors(1), Progress("KVM"), acceleration=Acceleration(True, ""), show=show, alone=True
    ):
        assert texts[-1] == "KVM"
