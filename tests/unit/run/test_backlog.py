"""Which guest gets a lane next, and what a lane takes."""

import itertools

import pytest

from lab import catalog
from lab.builds.kinds.wheel import Wheel
from lab.plan import (
    BLOCKED_SECONDS,
    BREAKING_SECONDS,
    BRING_UP_AGAIN_SECONDS,
    BRING_UP_SECONDS,
    PASS_SECONDS,
    REMEDIES_SECONDS,
    TURNING_SECONDS,
    Cell,
)
from lab.record import CellResult, ExperimentPolicy, Outcome, RunOptions, Status, TestResult
from lab.run.backlog import Backlog, Estimates, Ticket
from tests.builders.cells import changed
from tests.builders.lab import Seconds

KNOWN = catalog.load_catalog()
GUESTS = list(KNOWN.guests)
LONG, SHORT = GUESTS[0], GUESTS[1]
OLD, NEW = Wheel("0.9.0", "0.9.0"), Wheel("0.10.8", "0.10.8")


def even(*, bring_up: float = 10.0, cell: float = 30.0) -> Seconds:
    """The same seconds for every cell and every lane, as measured on this host."""
    return Seconds(bring_up, dict.fromkeys(GUESTS, cell))


def cells(guest: str, count: int) -> list[Cell]:
    plain = (variant for variant in KNOWN.variants.values() if not variant.kernel_arguments)
    variants = itertools.islice(plain, count)
    return [Cell(KNOWN.guest(guest), variant, NEW) for variant in variants]


def machines(backlog: Backlog) -> list[str]:
    """The machines for which a lane would help, the first one first."""
    return [machine.name for machine in backlog.next_machines()]


def take(backlog: Backlog, guest: str, number: int) -> Ticket:
    ticket = backlog.take(guest, number)
    assert ticket is not None
    return ticket


def bring_up(backlog: Backlog, guest: str, *numbers: int) -> None:
    for number in numbers:
        backlog.lane_opened(guest, number)
        backlog.lane_is_up(guest, number)


def test_the_guest_with_the_most_left_to_do_is_first() -> None:
    backlog = Backlog([*cells(SHORT, 2), *cells(LONG, 3)], even())
    assert machines(backlog) == [LONG, SHORT]
    # Its lane is lost after two cells: the order is by what is left, not by what there was.
    bring_up(backlog, LONG, 1)
    for _ in range(2):
        take(backlog, LONG, 1)
    backlog.lane_closed(LONG, 1)
    assert machines(backlog) == [SHORT, LONG]


# Four cells of 30 s are 120 s for one lane, 60 for two, 40 for three.
@pytest.mark.parametrize(
    ("lanes", "coming_up", "seconds", "pays"),
    [
        (1, 0, 59.0, True),
        (1, 0, 60.0, False),
        (2, 0, 19.0, True),
        (2, 0, 20.0, False),
        # Before a lane is up, no other one is opened for its guest.
        (0, 1, 1.0, False),
    ],
)
def test_a_further_lane_pays_for_its_start(lanes: int, coming_up: int, seconds: float, pays: bool) -> None:
    backlog = Backlog(cells(LONG, 4), even(bring_up=seconds))
    bring_up(backlog, LONG, *range(1, lanes + 1))
    for number in range(coming_up):
        backlog.lane_opened(LONG, lanes + number + 1)
    assert machines(backlog) == ([LONG] if pays else [])
    assert backlog.lanes(LONG) == lanes + coming_up


def test_until_a_suite_has_ended_the_cell_with_the_soonest_answer_is_taken_first() -> None:
    plan = [*cells(LONG, 4), *cells(SHORT, 1)]

    class Different(Seconds):
        def cell(self, cell: Cell) -> float:
            return [50.0, 40.0, 20.0, 30.0, 50.0][plan.index(cell)]

    backlog = Backlog(plan, Different(10.0, {}))
    bring_up(backlog, LONG, 1)
    first, second = take(backlog, LONG, 1), take(backlog, LONG, 1)
    assert [first.cell, second.cell] == [plan[2], plan[3]]
    # A cell that does not apply is no answer yet.
    backlog.ended(first, first.cell.result(Status.NOT_APPLICABLE))
    third = take(backlog, LONG, 1)
    assert third.cell == plan[1]
    tests = [TestResult(name="starts", outcome=Outcome.FAIL)]
    backlog.put_back(third, after_lane=0)
    backlog.ended(second, changed(second.cell.result(Status.XFAIL), tests=tests))
    # From then on they come in the order of the plan.
    assert [take(backlog, LONG, 1).cell for _ in range(2)] == [plan[0], plan[1]]
    assert backlog.take(LONG, 1) is None


def test_a_cell_that_met_a_fault_is_only_for_a_fresh_lane_even_where_that_does_not_pay() -> None:
    backlog = Backlog(cells(LONG, 2), even(bring_up=1000.0))
    # Two lanes were there when it met the fault on the first; neither is fresh.
    bring_up(backlog, LONG, 1)
    ticket, other = take(backlog, LONG, 1), take(backlog, LONG, 1)
    backlog.put_back(ticket, after_lane=2)
    backlog.put_back(other, after_lane=0)
    bring_up(backlog, LONG, 2)
    # One that any lane may take does not wait behind it.
    assert backlog.take(LONG, 2) is other
    assert (backlog.take(LONG, 1), backlog.take(LONG, 2)) == (None, None)
    assert machines(backlog) == [LONG]
    backlog.lane_opened(LONG, 3)
    assert machines(backlog) == []
    assert backlog.take(LONG, 3) is ticket


def test_when_a_lane_does_not_come_up_all_cells_that_waited_for_it_are_to_be_had_of_nobody() -> None:
    plan = cells(LONG, 2)
    backlog = Backlog([*plan, *cells(SHORT, 1)], even())
    backlog.lane_opened(LONG, 1)
    failed = backlog.lane_failed(LONG, 1)
    assert [ticket.cell for ticket in failed] == plan
    assert machines(backlog) == [SHORT]
    for ticket in failed:
        backlog.put_back(ticket, after_lane=1)
    assert machines(backlog) == [LONG, SHORT]


@pytest.mark.parametrize("needs_a_fresh_lane", [False, True])
def test_a_lane_that_does_not_come_up_beside_another_is_the_last_of_its_kind(needs_a_fresh_lane: bool) -> None:
    backlog = Backlog(cells(LONG, 4), even(bring_up=1.0))
    bring_up(backlog, LONG, 1)
    faulty = [take(backlog, LONG, 1)] if needs_a_fresh_lane else []
    for ticket in faulty:
        backlog.put_back(ticket, after_lane=1)
    assert machines(backlog) == [LONG]
    backlog.lane_opened(LONG, 2)
    # Otherwise lanes would be opened for it again and again, for as long as the first lane is at work.
    assert backlog.lane_failed(LONG, 2) == faulty
    assert machines(backlog) == []
    assert [take(backlog, LONG, 1).cell for _ in range(4 - len(faulty))] == cells(LONG, 4)[len(faulty) :]


def test_when_cold_there_is_a_lane_for_each_cell_and_none_more() -> None:
    backlog = Backlog(cells(LONG, 3), even(bring_up=1000.0), cold=True)
    for number in (1, 2, 3):
        assert machines(backlog) == [LONG]
        backlog.lane_opened(LONG, number)
    assert machines(backlog) == []
    for number in (1, 2, 3):
        backlog.lane_is_up(LONG, number)
        # A lane opened before it takes its cell would boot for nothing.
        assert machines(backlog) == []
        ticket = take(backlog, LONG, number)
        assert machines(backlog) == []
    backlog.put_back(ticket, after_lane=3)
    assert machines(backlog) == [LONG]


def test_when_cold_each_lane_that_does_not_come_up_is_a_fault_of_one_cell_whatever_other_lanes_do() -> None:
    plan = cells(LONG, 2)
    backlog = Backlog(plan, even(), cold=True)
    backlog.lane_opened(LONG, 1)
    backlog.lane_opened(LONG, 2)
    # Otherwise lanes that fail in turns would be opened without end: there is always another one.
    for number, cell in enumerate(plan, 1):
        assert [ticket.cell for ticket in backlog.lane_failed(LONG, number)] == [cell]
        assert machines(backlog) == []


def test_what_is_dropped_is_one_build_of_one_guest() -> None:
    plan = [Cell(cell.guest, cell.variant, b) for cell in cells(LONG, 2) for b in (OLD, NEW)]
    backlog = Backlog([*plan, *cells(SHORT, 1)], even())
    assert [ticket.cell for ticket in backlog.drop(LONG, OLD)] == [cell for cell in plan if cell.build == OLD]
    assert [ticket.cell for ticket in backlog.drop(LONG)] == [cell for cell in plan if cell.build == NEW]
    assert machines(backlog) == [SHORT]


def ran(cell: Cell, seconds: float, *, fork: str = "memory", tests: int = 1) -> CellResult:
    """A cell whose suite took so long."""
    return changed(
        cell.result(Status.PASS),
        tests=[TestResult(name="starts", outcome=Outcome.PASS)] * tests,
        seconds={"apply": seconds / 4, "suite": seconds * 3 / 4},
        fork=fork,
    )


def test_nobody_can_tell_what_is_left_until_a_suite_was_timed() -> None:
    backlog = Backlog(cells(LONG, 2), Estimates(RunOptions()))
    bring_up(backlog, LONG, 1)
    first, second = take(backlog, LONG, 1), take(backlog, LONG, 1)
    assert backlog.seconds_left(1) is None
    backlog.ended(first, ran(first.cell, 12.0))
    assert backlog.seconds_left(1) is not None
    backlog.ended(second, ran(second.cell, 12.0))
    assert backlog.seconds_left(1) == 0.0


STOCK, BLOCKED = (Cell(KNOWN.guest(LONG), KNOWN.variant(name), NEW) for name in ("stock", "max-userns-zero"))
TRIES = RunOptions(remedies=True, experiments=ExperimentPolicy.ALWAYS)


@pytest.mark.parametrize(
    ("results", "are_measured", "ratio"),
    [
        ([], False, 1.0),
        ([ran(STOCK, PASS_SECONDS / 3)], True, 1 / 3),
        # The median of all: what ran once on a busy host decides nothing.
        ([ran(STOCK, PASS_SECONDS * times) for times in (2, 3, 40)], True, 3.0),
        # The seconds of a cold cell hold its boot.
        ([ran(STOCK, PASS_SECONDS + BRING_UP_SECONDS, fork="cold")], True, 1.0),
        # No suite ran in it, or nobody timed it.
        ([ran(STOCK, 900.0, tests=0), ran(STOCK, 0.0)], False, 1.0),
    ],
)
def test_cells_and_lanes_take_typical_seconds_as_fast_as_the_suites_so_far(
    results: list[CellResult], are_measured: bool, ratio: float
) -> None:
    estimates, tries = Estimates(RunOptions()), Estimates(TRIES)
    for result in results:
        estimates.learn(STOCK, result)
        tries.learn(STOCK, result)
    assert estimates.are_measured is are_measured
    assert (estimates.cell(STOCK), estimates.cell(BLOCKED)) == (PASS_SECONDS * ratio, BLOCKED_SECONDS * ratio)
    assert estimates.bring_up("x86_64") == BRING_UP_SECONDS * ratio
    assert estimates.bring_up("x86_64", again=True) == BRING_UP_AGAIN_SECONDS * ratio
    assert tries.cell(STOCK) == (PASS_SECONDS + BREAKING_SECONDS) * ratio
    assert tries.cell(BLOCKED) == (BLOCKED_SECONDS + REMEDIES_SECONDS + TURNING_SECONDS) * ratio


ON_ARM64 = Cell(KNOWN.guest("debian-13-arm64"), KNOWN.variant("max-userns-zero"), NEW)


@pytest.mark.parametrize(
    ("times", "untimed"),
    # Under KVM, and emulated on a busy host.
    [(0.1, 1.0), (3.0, 3.0)],
)
def test_how_fast_guests_of_one_architecture_are_says_little_of_another(times: float, untimed: float) -> None:
    estimates = Estimates(RunOptions())
    for _ in range(3):
        estimates.learn(STOCK, ran(STOCK, PASS_SECONDS * times))
    assert estimates.cell(STOCK) == pytest.approx(PASS_SECONDS * times)
    assert estimates.cell(ON_ARM64) == pytest.approx(ON_ARM64.typical_seconds(RunOptions()) * untimed)
    estimates.learn(ON_ARM64, ran(ON_ARM64, ON_ARM64.typical_seconds() * 5.0))
    assert estimates.cell(ON_ARM64) == pytest.approx(ON_ARM64.typical_seconds(RunOptions()) * 5.0)
    assert estimates.bring_up("aarch64") == BRING_UP_SECONDS * 5.0
    assert estimates.bring_up("x86_64") == pytest.approx(BRING_UP_SECONDS * times)


def test_emulated_guests_get_their_lanes_before_those_that_kvm_makes_fast() -> None:
    fast = cells("debian-13", 4)
    backlog = Backlog([*fast, *cells("debian-13-arm64", 2)], Estimates(RunOptions()))
    assert machines(backlog) == ["debian-13", "debian-13-arm64"]
    bring_up(backlog, "debian-13", 1)
    ticket = take(backlog, "debian-13", 1)
    backlog.ended(ticket, ran(ticket.cell, 2.0))
    assert machines(backlog) == ["debian-13-arm64", "debian-13"]


def test_what_is_left_is_what_the_cells_are_estimated_to_take() -> None:
    backlog = Backlog([*cells(LONG, 2), *cells(SHORT, 1)], even())
    # All lanes share what is left.
    assert (backlog.seconds_left(1), backlog.seconds_left(2)) == (90.0, 45.0)
    # One lane works on each cell: more shorten none.
    assert backlog.seconds_left(8) == 30.0
    backlog.drop(SHORT)
    bring_up(backlog, LONG, 1)
    ticket = take(backlog, LONG, 1)
    assert backlog.seconds_left(1) == 60.0
    backlog.put_back(ticket, after_lane=0)
    assert backlog.seconds_left(1) == 60.0
    for _ in range(2):
        ticket = take(backlog, LONG, 1)
        backlog.ended(ticket, ticket.cell.result(Status.PASS))
    assert backlog.seconds_left(1) == 0.0


def test_what_is_left_of_a_cell_that_is_repeated_is_the_repeats_that_did_not_end() -> None:
    backlog = Backlog(cells(LONG, 2), even(), repeat=3)
    bring_up(backlog, LONG, 1)
    assert backlog.seconds_left(1) == 180.0
    ticket = take(backlog, LONG, 1)
    ticket.repeats.append(ticket.cell.result(Status.PASS))
    backlog.put_back(ticket, after_lane=0)
    assert backlog.seconds_left(1) == 150.0


def test_cells_with_kernel_arguments_have_lanes_of_their_own() -> None:
    [plain], booted = cells(SHORT, 1), Cell(KNOWN.guest(SHORT), KNOWN.variant("apparmor-off"), NEW)
    machine = f"{SHORT} apparmor=0"
    backlog = Backlog([plain, booted], even())
    assert set(machines(backlog)) == {SHORT, machine}
    for number, (name, cell) in enumerate([(machine, booted), (SHORT, plain)], 1):
        bring_up(backlog, name, number)
        assert take(backlog, name, number).cell == cell
        assert backlog.take(name, number) is None
