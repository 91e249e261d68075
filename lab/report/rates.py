"""How often tests failed in the repeats of cells, as the rows of a table: apart from failures."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.builds import UNDER_STRESS
from lab.record import CellResult, RunOptions, RunResult, TestRate
from lab.report import squares

# Most repeats that a row names.
MOST_REPEATS = 10


@dataclass(frozen=True)
class Rate:
    """Tests of one cell that ran and failed in the same repeats."""

    cell: CellResult
    heading: str
    tests: list[str]
    rate: TestRate

    @property
    def where(self) -> str:
        return f"{self.cell.guest} {self.heading}"

    @property
    def failed(self) -> str:
        """In how many of how many repeats: `3 of 8`."""
        return f"{self.rate.failed} of {self.rate.ran}"

    @property
    def interval(self) -> str:
        """What the share of failures is with 95 % confidence."""
        if self.rate.failed == 0:
            return f"at most {self.rate.high:.0%}"
        if self.rate.failed == self.rate.ran:
            return f"at least {self.rate.low:.0%}"
        return f"{self.rate.low:.0%} to {self.rate.high:.0%}"

    @property
    def repeats(self) -> str:
        """The repeats in which they failed; a dash if there is none."""
        numbers = self.rate.failed_in
        more = [f"and {len(numbers) - MOST_REPEATS} more"] if len(numbers) > MOST_REPEATS else []
        return ", ".join([*map(self._named, numbers[:MOST_REPEATS]), *more]) or "-"

    def _named(self, number: int) -> str:
        seed = self.cell.repeats[number - 1].seed
        return str(number) if seed is None else f"{number} (--shuffle={seed})"


def of_run(run: RunResult) -> list[Rate]:
    """Return the rates of all cells that were repeated, the tests that failed in some repeats only first."""
    headings = squares.columns_of(run)
    found = [each for cell in run.cells for each in of_cell(cell, headings[cell.variant, cell.build])]
    return sorted(found, key=lambda each: not 0 < each.rate.failed < each.rate.ran)


def of_cell(cell: CellResult, heading: str = "") -> list[Rate]:
    """Return the rates of one cell: those that failed most often first."""
    found: dict[tuple[int, tuple[int, ...]], Rate] = {}
    for rate in cell.rates:
        same = found.setdefault((rate.ran, tuple(rate.failed_in)), Rate(cell, heading, [], rate))
        same.tests.append(rate.name)
    return sorted(found.values(), key=lambda each: -each.rate.failed / each.rate.ran)


def conditions(options: RunOptions) -> list[str]:
    """Say under what the suites of a run are run, if it is not the usual."""
    load = f"load in the guests while suites run: {', '.join(options.stress)} (stress-ng)"
    limits = f"limits of tests are {UNDER_STRESS:.0f} times as long; that of boxlite for a box is not"
    found = [f"{load}; {limits}"] if options.stress else []
    if options.shuffle is not None:
        found.append(f"tests are shuffled, in the first run of each cell by --shuffle={options.shuffle}")
    return found


def note(run: RunResult) -> str:
    """Say what the rates are, and what to mind about them."""
    said = ["The share of repeats in which a test failed, with Wilson's interval at 95 % confidence."]
    if run.run.options.until_fail:
        said.append("A cell ended at its first failure (--until-fail), so its rate is rather too high.")
    if run.run.options.shuffle is not None:
        said.append("Each repeat had an order of its own; the option named with it gives that order again.")
    return " ".join(said)


def named(tests: Sequence[str], most: int) -> str:
    """Name tests, at most so many."""
    if len(tests) <= most:
        return ", ".join(tests)
    return f"{', '.join(tests[:most])} and {len(tests) - most} more"
