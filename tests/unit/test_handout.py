import time

import pytest

from lab.fleet import part
from lab.fleet.attempt import MOST_REST_SECONDS, REST_SECONDS, Attempt, Host
from lab.fleet.handout import MOST_LOSSES, Handout
from lab.images.content import Content, FileContent
from lab.plan import Cell
from lab.record import RunOptions
from tests.unit.run_examples import PLAN

OPTIONS = RunOptions(remedies=True)
# 4 cells of each of two guests: 45 s for stock, 135 s for each of the others.
GUEST_SECONDS = 45.0 + 3 * 135.0
# With the start of its lane.
PART_SECONDS = 45.0 + GUEST_SECONDS


def handout(most_seconds: float = 900.0, hosts: int = 1, **more: int) -> Handout:
    made = Handout(PLAN, OPTIONS, most_seconds)
    for number in range(hosts):
        host = Host(f"host-{number}", more.get("lanes", 1), more.get("memory_mib", 8192))
        made.hosts[host.name] = host
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, which stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def names(cells: list[Cell]) -> list[str]:
    return [cell.name for cell in cells]


def test_a_part_is_a_machine_s_cells_and_a_big_guest_is_several_parts() -> None:
    whole = part.cut(PLAN, OPTIONS, GUEST_SECONDS)
    assert [{cell.guest.name for cell in cells} for cells in whole] == [{"debian-12"}, {"debian-13"}]
    halves = part.cut(PLAN, OPTIONS, GUEST_SECONDS / 2)
    assert all(len({cell.machine.name for cell in cells}) == 1 for cells in halves)
    assert all(sum(cell.typical_seconds(OPTIONS) for cell in cells) <= GUEST_SECONDS / 2 for cells in halves)
    assert sorted(name for cells in halves for name in names(cells)) == sorted(names(PLAN))


def test_a_cell_that_takes_longer_than_a_part_is_one_by_itself_and_the_longest_is_first() -> None:
    cut = part.cut(PLAN, OPTIONS, 50.0)
    assert [len(cells) for cells in cut] == [1] * len(PLAN)
    seconds = [cells[0].typical_seconds(OPTIONS) for cells in cut]
    assert seconds == sorted(seconds, reverse=True)


def test_no_more_is_given_out_than_a_host_has_lanes_and_memory_for() -> None:
    desk = handout(50.0, lanes=2)
    assert [attempt is not None for attempt in (desk.next(), desk.next(), desk.next())] == [True, True, False]
    small = handout(50.0, lanes=4, memory_mib=part.memory_mib(PLAN) + 100)
    assert [attempt is not None for attempt in (small.next(), small.next())] == [True, False]


def test_a_host_with_kvm_comes_first_and_one_that_refused_gets_nothing() -> None:
    desk = handout(50.0, hosts=3)
    desk.hosts["host-2"].kvm = True
    desk.hosts["host-0"].refused = "another lab"
    given = [desk.next(), desk.next(), desk.next()]
    assert [attempt.host if attempt else "" for attempt in given] == ["host-2", "host-1", ""]


def test_what_was_lost_with_a_host_goes_to_another_one_and_back_only_if_there_is_none() -> None:
    desk = handout(hosts=2)
    first = desk.next()
    assert first is not None
    lost = desk.lost(first.host)
    assert lost == [first]
    desk.put_back(first.piece, first.piece.cells, f"{first.host} was lost", first.host)
    desk.hosts[first.host] = Host(first.host, 4, 8192)
    again = desk.next()
    assert again is not None
    assert (again.host != first.host, again.piece.faults) == (True, [f"{first.host} was lost"])
    assert (names(again.piece.cells), again.token != first.token) == (names(first.piece.cells), True)
    desk.lost(again.host)
    desk.put_back(again.piece, again.piece.cells, f"{again.host} was lost", again.host)
    third = desk.next()
    assert third is not None
    assert third.host == first.host


def test_a_part_that_costs_one_host_after_another_is_given_up() -> None:
    desk = handout()
    piece = desk.waiting.pop(0)
    for number in range(1, MOST_LOSSES):
        again = desk.put_back(piece, piece.cells, f"lost {number}", f"host-{number}")
        assert again is not None
        desk.waiting.remove(again)
        piece = again
    assert desk.put_back(piece, piece.cells, "lost again", "host-9") is None
    assert len(desk.waiting) == 1


def fails(desk: Handout, attempt: Attempt) -> None:
    """Its host's lab fails, and decides nothing."""
    host = desk.hosts[attempt.host]
    desk.ended(attempt.token)
    host.fails(attempt)
    desk.put_back(attempt.piece, attempt.piece.cells, "its lab failed", host.name)


def given(desk: Handout) -> Attempt:
    attempt = desk.next()
    assert attempt is not None
    return attempt


def test_a_host_whose_lab_failed_rests_and_longer_after_each_failure(clock: list[float]) -> None:
    desk = handout(50.0)
    for seconds in (REST_SECONDS, 2 * REST_SECONDS, MOST_REST_SECONDS, MOST_REST_SECONDS):
        fails(desk, given(desk))
        clock[0] += seconds - 0.1
        assert desk.next() is None
        assert desk.hosts["host-0"].is_resting
        # It is busy, and not of no use.
        assert desk.impossible() == {}
        clock[0] += 0.2
    attempt = given(desk)
    desk.ended(attempt.token)
    desk.hosts["host-0"].succeeds()
    fails(desk, given(desk))
    clock[0] += REST_SECONDS
    assert desk.next() is not None


def test_while_a_host_rests_another_one_that_joins_gets_its_part(clock: list[float]) -> None:
    desk = handout()
    failed = given(desk)
    fails(desk, failed)
    assert desk.next() is None
    desk.hosts["new"] = Host("new", 2, 8192)
    both = [given(desk), given(desk)]
    assert {attempt.host for attempt in both} == {"new"}
    assert both[0].piece.cells == failed.piece.cells


def test_parts_that_fail_on_a_host_at_the_same_time_are_one_failure(clock: list[float]) -> None:
    desk = handout(50.0, lanes=2)
    parts = [given(desk), given(desk)]
    for attempt in parts:
        clock[0] += 0.1
        fails(desk, attempt)
    assert desk.hosts["host-0"].failures == 1


def test_the_only_host_gets_a_part_that_failed_there_after_all_others(clock: list[float]) -> None:
    desk = handout(50.0)
    failed = given(desk)
    fails(desk, failed)
    clock[0] += REST_SECONDS
    order = []
    while not desk.is_done:
        attempt = given(desk)
        order.append(attempt.piece.cells)
        desk.ended(attempt.token)
    assert order[-1] == failed.piece.cells
    assert len(order) == len(PLAN)


def test_the_only_host_tries_all_parts_as_often_before_one_is_given_up(clock: list[float]) -> None:
    desk = handout(50.0)
    tried: list[str] = []
    for _ in range(2 * len(PLAN)):
        attempt = given(desk)
        tried += names(attempt.piece.cells)
        fails(desk, attempt)
        clock[0] += MOST_REST_SECONDS
    assert sorted(tried) == sorted(2 * names(PLAN))
    assert len(desk.waiting) == len(PLAN)


def test_a_part_comes_back_to_a_host_if_the_others_are_too_small_for_it() -> None:
    desk = handout(lanes=2)
    desk.hosts["small"] = Host("small", 4, 512)
    first = desk.next()
    assert first is not None
    desk.ended(first.token)
    desk.put_back(first.piece, first.piece.cells, "its lab failed", "host-0")
    # After the other part.
    assert [(each.host, each.piece.faults) for each in (given(desk), given(desk))] == [
        ("host-0", []),
        ("host-0", ["its lab failed"]),
    ]


def test_an_attempt_ends_once() -> None:
    desk = handout()
    attempt = desk.next()
    assert attempt is not None
    assert desk.ended(attempt.token) is attempt
    assert desk.ended(attempt.token) is None
    assert desk.next() is not None


def test_a_part_that_no_host_can_ever_run_is_told_with_the_figures() -> None:
    desk = handout(memory_mib=1024)
    assert desk.next() is None
    need = part.memory_mib(PLAN)
    assert set(desk.impossible().values()) == {f"a lane needs {need} MiB of memory, and host-0 has 1024 MiB"}
    assert handout().impossible() == {}
    assert handout(hosts=0).impossible() == {}


def test_time_left_goes_by_typical_times_from_the_beginning(clock: list[float]) -> None:
    assert handout(hosts=0).seconds_left() is None
    assert handout(memory_mib=1024).seconds_left() is None
    without_images = handout()
    without_images.images = {}
    assert without_images.seconds_left() is None
    desk = handout(hosts=2)
    assert (desk.seconds_left(), desk.is_timed) == (PART_SECONDS, False)
    assert handout(hosts=1, lanes=2).seconds_left() == PART_SECONDS
    assert handout(hosts=1).seconds_left() == 2 * PART_SECONDS
    assert desk.next() is not None
    clock[0] += 100.0
    assert (desk.seconds_left(), desk.is_timed) == (PART_SECONDS, False)


def test_time_left_goes_by_what_parts_took_once_one_has_ended(clock: list[float]) -> None:
    desk = handout(hosts=1)
    first = desk.next()
    assert first is not None
    clock[0] = 2 * PART_SECONDS
    desk.ended(first.token, is_whole=True)
    assert (desk.seconds_left(), desk.is_timed) == (2 * PART_SECONDS, True)
    second = desk.next()
    assert second is not None
    clock[0] += 100.0
    assert desk.seconds_left() == 2 * PART_SECONDS - 100.0
    second.tell_left(30.0)
    clock[0] += 10.0
    assert desk.seconds_left() == 20.0


def test_what_a_host_says_of_its_part_is_true_of_those_that_wait(clock: list[float]) -> None:
    desk = handout(hosts=1)
    first = desk.next()
    assert first is not None
    clock[0] = 100.0
    first.tell_left(PART_SECONDS / 2 - 100.0)
    assert (desk.seconds_left(), desk.is_timed) == (PART_SECONDS - 100.0, True)
    first.tell_left(None)
    assert (desk.seconds_left(), desk.is_timed) == (2 * PART_SECONDS - 100.0, False)


def test_a_part_that_was_lost_does_not_show_how_long_one_takes(clock: list[float]) -> None:
    desk = handout(hosts=1)
    first = desk.next()
    assert first is not None
    clock[0] = 1.0
    desk.ended(first.token)
    desk.put_back(first.piece, first.piece.cells, "its lab failed", first.host)
    assert (desk.seconds_left(), desk.is_timed) == (2 * PART_SECONDS, False)


def test_a_part_waits_for_its_image_while_others_are_given_out() -> None:
    desk = handout(hosts=2)
    desk.images = {"debian-12": image("debian-12")}
    first = desk.next()
    assert first is not None
    assert first.piece.guest == "debian-12"
    assert desk.next() is None
    desk.images = {**desk.images, "debian-13": image("debian-13")}
    second = desk.next()
    assert second is not None
    assert second.piece.guest == "debian-13"


def image(guest: str) -> Content:
    files = {"disk.qcow2": FileContent(sha256="d" * 64, size=len(guest))}
    return Content(guest=guest, inputs="a" * 64, files=files)


def test_a_part_goes_to_the_host_that_has_its_image() -> None:
    desk = handout(hosts=3)
    desk.images = {guest: image(guest) for guest in ("debian-12", "debian-13")}
    its = image("debian-13")
    desk.hosts["host-1"].images[its.digest] = its
    desk.hosts["host-2"].kvm = True
    given = [desk.next(), desk.next()]
    assert [(each.host, each.piece.guest) for each in given if each] == [
        ("host-2", "debian-12"),
        ("host-1", "debian-13"),
    ]


def test_a_host_goes_on_with_the_machine_that_it_booted() -> None:
    """Each guest is cut into several parts; two hosts need two boots for all of them."""
    desk = handout(150.0, hosts=2)
    booted: set[tuple[str, str]] = set()
    order: list[str] = []
    while not desk.is_done:
        given = [attempt for attempt in (desk.next(), desk.next()) if attempt]
        for attempt in given:
            booted.add((attempt.host, attempt.piece.machine))
            order.append(attempt.piece.machine)
            desk.ended(attempt.token)
    assert len(order) > 4
    assert len(booted) == 2


def test_what_was_lost_before_is_not_put_off_for_a_boot() -> None:
    desk = handout(150.0, hosts=1)
    first = desk.next()
    assert first is not None
    desk.ended(first.token)
    other = next(piece for piece in desk.waiting if piece.machine != first.piece.machine)
    desk.waiting.remove(other)
    desk.put_back(other, other.cells, "lost", "another host")
    second = desk.next()
    assert second is not None
    assert second.piece.machine == other.machine


def test_one_host_prepares_an_image_and_meanwhile_others_get_other_guests() -> None:
    desk = handout(50.0, hosts=3)
    disk = {"disk.qcow2": FileContent(sha256="d" * 64, size=1)}
    guests = ("debian-12", "debian-13")
    desk.images = {name: Content(guest=name, inputs="a" * 64, files=disk) for name in guests}
    desk.unprepared = {"debian-13"}
    given = [attempt for _ in range(3) if (attempt := desk.next())]
    # What others wait for comes first.
    assert [attempt.piece.guest for attempt in given] == ["debian-13", "debian-12", "debian-12"]
    for attempt in given:
        if attempt.piece.guest == "debian-12":
            desk.ended(attempt.token)
    desk.waiting = [piece for piece in desk.waiting if piece.guest == "debian-13"]
    assert (desk.next(), desk.seconds_left()) == (None, None)
    # Its host is lost: another one prepares it, and so does the next part of the guest.
    (leading,) = (attempt for attempt in given if attempt.piece.guest == "debian-13")
    desk.lost(leading.host)
    second = desk.next()
    assert second is not None
    assert desk.next() is None
    desk.unprepared = set()
    third = desk.next()
    assert third is not None
    assert third.host != second.host
