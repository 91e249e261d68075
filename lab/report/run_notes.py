"""What reports say about a run as a whole: what is missing, how often tests failed, its hosts and its time."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from lab import builds
from lab.base.errors import TRACEBACK_FILE
from lab.base.files import group_values
from lab.builds import UNDER_STRESS
from lab.catalog import describe_subjects
from lab.record import CellResult, Host, Outcome, RunInfo, RunOptions, RunResult, TestRate
from lab.report.table import format_count, label_columns_of, list_cells, name_cell


def describe_next_step(run: RunResult, folder: Path) -> str:
    """Say what is missing from a run and how to continue it; empty if the run is complete."""
    missing = sum(
        cell.status.could_not_run and not (run.run.options.predict and cell.prediction) for cell in run.cells
    )
    more = sum(cell.has_more_to_try for cell in run.cells)
    parts = [f"{missing} of {len(run.cells)} cells are missing"] if missing else []
    parts += [f"more to try on {more} of {len(run.cells)} cells"] if more else []
    bugs = sum(cell.met_bug for cell in run.cells)
    parts += [f"{bugs} met a bug in the lab: report it with {TRACEBACK_FILE}"] if bugs else []
    if not parts:
        return ""
    ended = "interrupted; " if run.run.interrupted else "not finished; " if not run.run.finished else ""
    if run.run.is_partial:
        ended = f"partial, merged without {len(run.run.lost_shards)} of its shards; {ended}"
    again = " ".join(filter(None, [shlex.quote(str(folder)), builds.format_build_options(run.run.builds)]))
    return f"{ended}{', '.join(parts)}; continue with: lab matrix --resume {again}"


def describe_coverage(cells: Iterable[CellResult]) -> str:
    """Say what the tests are about that passed in each of the cells that passed, and what they are not about.

    Empty if no cell passed.
    """
    passed = [cell for cell in cells if cell.status.passed]
    of_cells = [{test.subject for test in cell.tests if test.outcome is Outcome.PASS} for cell in passed]
    if not of_cells:
        return ""
    return describe_subjects(set.intersection(*of_cells), "in all of these cells")


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
        repeats = [
            str(number)
            if (seed := self.cell.suite.repeats[number - 1].seed) is None
            else f"{number} (--shuffle={seed})"
            for number in numbers[:MOST_REPEATS]
        ]
        more = [f"and {len(numbers) - MOST_REPEATS} more"] if len(numbers) > MOST_REPEATS else []
        return ", ".join([*repeats, *more]) or "-"

    def name_tests(self, most: int) -> str:
        more = len(self.tests) - most
        return ", ".join(self.tests[:most]) + (f" and {more} more" if more > 0 else "")


def list_rates(run: RunResult) -> list[Rate]:
    """Return the rates of all cells that were repeated. Tests that failed in only some repeats come first."""
    headings = label_columns_of(run)
    rates = [
        rate for cell in run.cells for rate in list_rates_of_cell(cell, headings[cell.variant, cell.build])
    ]
    return sorted(rates, key=lambda rate: not 0 < rate.rate.failed < rate.rate.ran)


def list_rates_of_cell(cell: CellResult, heading: str = "") -> list[Rate]:
    """Return the rates of one cell: those that failed most often first."""
    by_repeats: dict[tuple[int, tuple[int, ...]], Rate] = {}
    for rate in cell.suite.rates:
        same = by_repeats.setdefault((rate.ran, tuple(rate.failed_in)), Rate(cell, heading, [], rate))
        same.tests.append(rate.name)
    return sorted(by_repeats.values(), key=lambda rate: -rate.rate.failed / rate.rate.ran)


def list_conditions(options: RunOptions) -> list[str]:
    """Say under which conditions the suites of a run are run, if these are not the usual ones."""
    load = f"load in the guests while suites run: {', '.join(options.stress)} (stress-ng)"
    limits = f"limits of tests are {UNDER_STRESS:.0f} times as long; that of boxlite for a box is not"
    texts = [f"{load}; {limits}"] if options.stress else []
    if options.shuffle is not None:
        texts.append(f"tests are shuffled, in the first run of each cell by --shuffle={options.shuffle}")
    return texts


def explain_rates(run: RunResult) -> str:
    """Say what the rates are, and what a reader must keep in mind."""
    texts = ["The share of repeats in which a test failed, with Wilson's interval at 95 % confidence."]
    if run.run.options.until_fail:
        texts.append("A cell ended at its first failure (--until-fail), so its rate is too high on average.")
    if run.run.options.shuffle is not None:
        texts.append("Each repeat had an order of its own; the option named with it gives that order again.")
    return " ".join(texts)


def group_hosts(run: RunResult) -> list[tuple[Host, list[str], list[str]]]:
    """Return the kinds of hosts of a run, each with the names of its hosts: a run may have had hundreds.

    There is no name if the run had one host. The last list says how guests were accelerated there, and why.
    """
    under = group_values(
        (host.itself, f"{host.acceleration}: {host.acceleration_reason}") for host in run.run.hosts()
    )
    alike = group_values(
        ((host.with_values(name=""), tuple(lines)), host.name) for host, lines in under.items()
    )
    return [(host, names if len(under) > 1 else [], [*lines]) for (host, lines), names in alike.items()]


def name_hosts(info: RunInfo) -> dict[Host, str]:
    """Return the name of each host of a run."""
    return {host.itself: host.name for host in info.hosts()}


def _leave_out_kept_lanes(run: RunResult) -> RunInfo:
    """What holds for a run, with its own lanes only: those of kept cells are lanes of an earlier run."""
    histories = [cell.history for cell in run.cells if cell.history.kept]
    kept = {label for history in histories for label in (history.lane, history.trials_lane)}
    return run.run.with_values(lanes=[lane for lane in run.run.lanes if lane.label not in kept])


def describe_hosts(run: RunResult) -> list[str]:
    """Say what each of several hosts ran, and which cells two of them shared; nothing of one host."""
    info = _leave_out_kept_lanes(run)
    names = name_hosts(info)
    if len(names) < 2:
        return []
    host_of = {lane.label: lane.host or info.host for lane in info.lanes}
    hosts = {label: host.itself for label, host in host_of.items() if host}
    cells_of: dict[Host, list[CellResult]] = {host: [] for host in names}
    shared = []
    for cell in run.cells:
        host, other = hosts.get(cell.history.lane), hosts.get(cell.history.trials_lane)
        if host:
            cells_of[host].append(cell)
        if host and other and host != other:
            shared.append(
                f"{name_cell(cell)}: its suite ran on {names[host]}; "
                f"its remedies and changes were tried on {names[other]}"
            )
    lines = []
    for host, cells in cells_of.items():
        count = f"{format_count(len(cells), 'cell')}: {list_cells(run, cells)}" if cells else "no cell"
        lines.append(f"{names[host]} ran {count}")
    return lines + shared


def describe_time(run: RunResult) -> str:
    """Say how long a run took and how busy its guests kept the host; empty if it did not end in one session.

    Empty, too, if it ran nothing.
    """
    info = _leave_out_kept_lanes(run)
    hosts = name_hosts(info)
    if info.finished is None or info.resumed or info.merged or not hosts:
        return ""
    wall = (info.finished - info.started).total_seconds()
    took, busy = (
        str(timedelta(seconds=round(seconds)))
        for seconds in (wall, sum(lane.processor_seconds or 0.0 for lane in info.lanes))
    )
    processors = sum(host.cpus for host in hosts)
    return f"the run took {took}; its guests kept the processors busy for {busy} of {processors} x {took}"
