"""Pass rate per guest over releases and runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.record import Status
from lab.site.history import Seen, SeenRun

# Statuses that say something about boxlite.
DECIDED = (Status.PASS, Status.FAIL, Status.XFAIL, Status.XPASS, Status.FLAKY)
# An unexpected pass is a pass.
PASSED = (Status.PASS, Status.XPASS)
# More bars beside each other than this cannot be told apart on a phone.
MOST_COLUMNS = 24


@dataclass(frozen=True)
class Column:
    """One build in one run."""

    run: str
    build: str


@dataclass(frozen=True)
class Rate:
    """How many of a guest's cells with a result passed.

    `same_cells`: the rate is over the same variants as the one before.
    """

    passed: int
    decided: int
    same_cells: bool = True

    @property
    def percent(self) -> int:
        """The share that passed, in percent."""
        return round(100 * self.passed / self.decided)

    def __str__(self) -> str:
        return f"{self.passed}/{self.decided}"


@dataclass(frozen=True)
class PassRates:
    """The rates of each guest by column; None where no cell of the guest has a result.

    `left_out` counts the older columns that are not shown.
    """

    columns: list[Column]
    guests: dict[str, list[Rate | None]]
    left_out: int

    @property
    def have_other_cells(self) -> bool:
        """Whether any rate is over other cells than the one before."""
        return any(rate and not rate.same_cells for rates in self.guests.values() for rate in rates)


def pass_rates(runs: Iterable[SeenRun]) -> PassRates:
    """Return the rates of each build in each run, the oldest run first."""
    ordered = sorted(runs, key=lambda run: run.started)
    pairs = [(run, build) for run in ordered for build in _builds(run)]
    shown = pairs[-MOST_COLUMNS:]
    guests = sorted({cell.guest for run, _ in shown for cell in run.cells})
    return PassRates(
        [Column(run.id, build) for run, build in shown],
        {guest: _rates([_decided(run, build, guest) for run, build in shown]) for guest in guests},
        len(pairs) - len(shown),
    )


def _builds(run: SeenRun) -> list[str]:
    """The builds of a run's cells, in the order of the run's command."""
    names = dict.fromkeys(cell.build for cell in run.cells)
    return [
        *(name for name in run.builds if name in names),
        *(name for name in names if name not in run.builds),
    ]


def _decided(run: SeenRun, build: str, guest: str) -> list[Seen]:
    return [cell for cell in run.cells if (cell.build, cell.guest) == (build, guest) and cell.status in DECIDED]


def _rates(columns: Sequence[Sequence[Seen]]) -> list[Rate | None]:
    rates: list[Rate | None] = []
    before: set[str] = set()
    for cells in columns:
        if not cells:
            rates.append(None)
            continue
        variants = {cell.variant for cell in cells}
        passed = sum(cell.status in PASSED for cell in cells)
        rates.append(Rate(passed, len(cells), same_cells=not before or before == variants))
        before = variants
    return rates
