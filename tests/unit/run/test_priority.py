"""Which cells a run with a budget runs first, and what it says of the rest."""

from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.base.options import parse_duration
from lab.plan import Cell, choose_cells
from lab.record import BuildRecord, CellResult, Foreseen, Prediction, Status
from lab.run.backlog import Backlog
from lab.run.priority import Budget, PastOutcomes, describe_rest, order_cells, read_history
from tests.builders.cells import blocked, cell
from tests.builders.lab import Seconds
from tests.builders.runs import KNOWN, RELEASE, run_of

VARIANTS = ["stock", "max-userns-zero", "userns-clone-off"]
CELLS = choose_cells(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS).cells([RELEASE])
NOTHING = PastOutcomes()


def names(cells: list[Cell]) -> list[str]:
    return [f"{each.guest.name}/{each.variant.name}" for each in cells]


def history_of(base: Path, *runs: list[CellResult]) -> PastOutcomes:
    builds = [BuildRecord(name="0.10.8", version="0.10.8", source="PyPI", suite="jailer")]
    for number, cells in enumerate(runs):
        (base / f"run-{number}").mkdir(parents=True)
        run_of(*cells, builds=builds).write(base / f"run-{number}")
    (base / "run-9-damaged").mkdir()
    return read_history(base)


def test_without_a_history_one_cell_of_each_cause_and_family_comes_first() -> None:
    assert names(order_cells(CELLS, NOTHING)) == [
        *["debian-12/stock", "debian-12/max-userns-zero", "debian-12/userns-clone-off"],
        *["debian-13/stock", "debian-13/max-userns-zero", "debian-13/userns-clone-off"],
    ]


def test_what_changed_lately_or_surprises_the_probes_comes_first(tmp_path: Path) -> None:
    surprised = cell("debian-13", "userns-clone-off", prediction=Prediction(says=Foreseen.WORKS))
    steady = blocked(guest="debian-12", variant="max-userns-zero")
    history = history_of(
        tmp_path,
        [steady, cell("debian-13", "stock"), surprised],
        # What the lab could not run says nothing.
        [steady, cell("debian-13", "stock", status=Status.ERROR)],
        [steady, blocked(guest="debian-13", variant="stock")],
    )
    assert names(order_cells(CELLS, history))[:3] == [
        "debian-13/stock",
        "debian-13/userns-clone-off",
        # The causes of the first two have their cell already.
        "debian-12/max-userns-zero",
    ]
    by_name = dict(zip(names(CELLS), CELLS, strict=True))
    assert history.changes(by_name["debian-13/stock"]) == (1, 1)
    assert history.changes(by_name["debian-12/max-userns-zero"]) == (0, 2)
    left = [by_name["debian-13/stock"], by_name["debian-12/max-userns-zero"]]
    assert describe_rest(left, history) == (
        "--within left 2 cells of debian-13, debian-12; how often these did something new before: 1 of 3 times"
    )


def test_what_was_left_without_a_history_is_unknown() -> None:
    assert describe_rest([], NOTHING) == ""
    assert describe_rest(CELLS[:1], NOTHING).endswith("before: unknown, no two earlier runs have them")


def test_a_backlog_in_order_gives_lanes_and_cells_in_that_order() -> None:
    cells = [CELLS[4], *CELLS[:3]]
    backlog = Backlog(cells, Seconds(10.0, dict.fromkeys(["debian-12", "debian-13"], 30.0)), in_order=True)
    assert [machine.name for machine in backlog.next_machines()] == ["debian-13", "debian-12"]
    backlog.lane_opened("debian-12", 1)
    backlog.lane_is_up("debian-12", 1)
    ticket = backlog.take("debian-12", 1)
    assert ticket is not None
    assert ticket.cell == CELLS[0]


def test_a_budget_is_over_at_its_end() -> None:
    assert Budget(0.0, NOTHING).is_over
    assert not Budget(3600.0, NOTHING).is_over


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "0m", "10", "-5m", "1.5h", "m", "", "9999999s", "١0m", "10 m"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration"):
        parse_duration(text)
