"""The table as data, and what reports say beside it: groups of cells, rates, hosts, and the time a run took."""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from lab import builds
from lab.base import notices
from lab.base.architecture import of_guest
from lab.base.errors import TRACEBACK_FILE
from lab.base.files import grouped, in_one_line
from lab.builds import UNDER_STRESS
from lab.record import (
    CellResult,
    Host,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunInfo,
    RunOptions,
    RunResult,
    Status,
    StepOutcome,
    TestRate,
    without_kernel,
)

Column = tuple[str, str]

# Cells without a result: reports show only their reason.
LEFT_OUT = (Status.NOT_APPLICABLE, Status.NOT_RUN)


def counted(number: int, noun: str) -> str:
    """Count things: `1 cell`, `2 cells`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def title(run: RunResult) -> str:
    versions = dict.fromkeys(build.version for build in run.run.builds)
    boxlite = " ".join(filter(None, ["boxlite", ", ".join(versions)]))
    guests = {without_kernel(cell.guest) for cell in run.cells}
    others = {cell.kernel for cell in run.cells} - {""}
    more = f", with {counted(len(others), 'other kernel')}" if others else ""
    machines = {cell.facts.machine if cell.facts else of_guest(cell.guest).name for cell in run.cells}
    of = f" of {' and '.join(sorted(machines))}" if machines else ""
    return f"{boxlite}: the jailer on {counted(len(guests), 'guest')}{of}{more}"


def name(cell: CellResult) -> str:
    return f"{cell.guest} {cell.variant} {cell.build}"


def square(cell: CellResult | None) -> str:
    """Return the text of a cell's square: its status, and what is said beside it."""
    return f"{cell.status} {remark(cell)}".strip() if cell else ""


@notices.guarded_text
def remark(cell: CellResult) -> str:
    """Return what is said beside a cell's status: the cause, or how many repeats passed, and the retries."""
    parts = []
    if cell.status.failed and cell.cause:
        parts.append(cell.cause)
    if cell.status is Status.FLAKY:
        completed = [repeat for repeat in cell.repeats if not repeat.status.could_not_run]
        parts.append(f"{sum(not repeat.failed for repeat in completed)}/{len(completed)}")
    if cell.retried:
        parts.append(f"(try {len(cell.retried) + 1})")
    return " ".join(parts)


def outcome(cell: CellResult) -> str:
    """Return a cell's outcome in one line: the text of its square, and the reason if it was left out."""
    return f"{square(cell)}{_why(cell)}"


def left_out(run: RunResult, statuses: Collection[Status] = LEFT_OUT) -> list[str]:
    """Return one line for each reason why cells are n/a or were not run, with the cells concerned."""
    by_reason = grouped((f"{cell.status}{_why(cell)}", cell) for cell in run.cells if cell.status in statuses)
    return [f"{why}: {listed(run, cells)}" for why, cells in by_reason.items()]


def listed(run: RunResult, cells: Iterable[CellResult]) -> str:
    """Name cells of a run by guest, and those of a guest only if they are not all of it."""
    headings = columns_of(run)
    planned = Counter(cell.guest for cell in run.cells)
    guests = grouped((cell.guest, headings[cell.variant, cell.build]) for cell in cells)
    return ", ".join(
        guest if len(names) == planned[guest] else f"{guest} ({', '.join(names)})"
        for guest, names in guests.items()
    )


def _why(cell: CellResult) -> str:
    reason = in_one_line(cell.reason)
    return f" ({reason})" if reason and cell.status in LEFT_OUT else ""


def next_step(run: RunResult, folder: Path) -> str:
    """Say what is missing from a run and how to continue it; empty if the run is complete."""
    missing = sum(cell.status.could_not_run for cell in run.cells)
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
    again = " ".join(filter(None, [shlex.quote(str(folder)), builds.naming(run.run.builds)]))
    return f"{ended}{', '.join(parts)}; continue with: lab matrix --resume {again}"


@notices.guarded_text
def kernel(cells: Iterable[CellResult | None]) -> str:
    """Return the kernel and the architecture that were read in the guest; a dash if the guest never ran."""
    read = next((cell.facts for cell in cells if cell and cell.facts), None)
    return in_one_line(f"{read.kernel} {read.machine}") if read else "-"


def columns(names: Iterable[Column]) -> dict[Column, str]:
    """Map each column (variant and build) to its heading, which names the build only if there are several."""
    pairs = dict.fromkeys(names)
    several = len({build for _, build in pairs}) > 1
    return {(variant, build): f"{variant} {build}" if several else variant for variant, build in pairs}


def columns_of(run: RunResult) -> dict[Column, str]:
    return columns((cell.variant, cell.build) for cell in run.cells)


def rows(run: RunResult) -> dict[str, list[CellResult | None]]:
    """Return the cells by guest, in the order of the columns; None if the plan has no such cell.

    The rows of a guest with several kernels follow each other.
    """
    by_identity = {(cell.guest, cell.variant, cell.build): cell for cell in run.cells}
    across = columns_of(run)
    guests = dict.fromkeys(cell.guest for cell in run.cells)
    with_kernels = grouped((without_kernel(guest), guest) for guest in guests)
    in_order = (guest for group in with_kernels.values() for guest in group)
    return {guest: [by_identity.get((guest, *column)) for column in across] for guest in in_order}


def remedies(cell: CellResult) -> list[RemedyResult]:
    """Return the remedies tried on a cell: cures first, each group sorted by the protection given up."""
    return sorted(cell.remedies, key=lambda tried: tried.result is not RemedyOutcome.VERIFIED)


def how(tried: RemedyResult) -> str:
    """Return the command that shows the remedy, as a script if it changes the host."""
    script = " --script" if tried.scripts else ""
    return " and ".join(f"lab remedies show {name}{script}" for name in tried.name.split("+"))


@notices.guarded_text
def experiment(cell: CellResult) -> str:
    """Say in one line what the experiment on a cell found; empty if there was none."""
    made = cell.experiment
    if made is None:
        return ""
    alone = [step for step in made.steps if len(step.changes) == 1]
    outcomes = Counter(step.outcome for step in alone)
    judged = outcomes[StepOutcome.PASSES] + outcomes[StepOutcome.FAILS]
    turning = [" and ".join(changes) for changes in made.turning]
    if not judged and not turning:
        finding = "no change was tried"
    elif cell.status is Status.PASS:
        finding = f"it fails {', '.join(turning)}" if turning else "nothing that was tried breaks it"
    else:
        finding = f"what failed passes {turning[0]}" if turning else "nothing that was tried lets it pass"
    counts = {
        "tried alone": judged,
        "cannot be tried": outcomes[StepOutcome.CANNOT],
        "faults of the lab": outcomes[StepOutcome.ERROR],
    }
    numbers = [f"{what}: {count}" for what, count in counts.items() if count]
    return "; ".join(filter(None, [finding, made.stopped, *numbers, f"judged by {', '.join(made.tests)}"]))


def counts(cells: Iterable[CellResult]) -> str:
    """Count cells by status: `7 pass, 4 xfail, 2 n/a`."""
    statuses = [cell.status for cell in cells]
    return ", ".join(f"{statuses.count(s)} {s}" for s in Status if s in statuses)


@dataclass(frozen=True)
class Look:
    """How a status is shown: its style on a terminal, the kind of its mark on a page, and what it means."""

    style: str
    mark: str
    meaning: str


# What a person has to look at comes first.
LOOKS = {
    Status.FAIL: Look(
        "bold red",
        "blocked",
        "boxlite failed where a pass is expected, or for another cause than expected",
    ),
    Status.XPASS: Look("bold red", "trouble", "boxlite passed where a failure is expected"),
    Status.FLAKY: Look("bold red", "trouble", "repeats of the suite disagree"),
    Status.ERROR: Look("bold magenta", "trouble", "a fault of the lab: says nothing about boxlite"),
    Status.NOT_RUN: Look("magenta", "untested", "not tested"),
    Status.XFAIL: Look("yellow", "blocked", "boxlite failed as expected, for the expected cause"),
    Status.PASS: Look("green", "works", "every test passed"),
    Status.NOT_APPLICABLE: Look("dim", "untested", "does not apply to this guest: not tested"),
}

# boxlite's own diagnosis of a cell, if it is not right; empty if it is, or was not judged.
Misdiagnosis = Callable[[CellResult], str]


@dataclass(frozen=True)
class FailedTests:
    """Tests that did not pass, with the same outcome and message. `cells`: in how many of the section's."""

    outcome: Outcome
    message: str
    names: list[str]
    cells: int


@dataclass(frozen=True)
class TriedRemedy:
    """A remedy with the same result in every cell of a section."""

    first: RemedyResult
    reasons: list[str]
    defects: list[str]

    @property
    def cures(self) -> bool:
        return self.first.result is RemedyOutcome.VERIFIED


@dataclass(frozen=True)
class Section:
    """Cells of which all is the same but the guest, the variant and the build."""

    cells: list[CellResult]
    headings: dict[Column, str]
    misdiagnosis: str

    @property
    def first(self) -> CellResult:
        """The cell whose status, reason and causes stand for all."""
        return self.cells[0]

    @property
    def title(self) -> str:
        return f"{square(self.first)}: {self.where}"

    @property
    def where(self) -> str:
        """Name the cell if there is one; else count cells and guests."""
        if len(self.cells) == 1:
            return f"{self.first.guest} {self.heading(self.first)}"
        guests = {without_kernel(cell.guest) for cell in self.cells}
        return f"{len(self.cells)} cells on {counted(len(guests), 'guest')}"

    @cached_property
    def by_guest(self) -> dict[str, list[CellResult]]:
        return grouped((cell.guest, cell) for cell in self.cells)

    def heading(self, cell: CellResult) -> str:
        """Return the heading of the cell's column: its variant, and its build if the run has several."""
        return self.headings[cell.variant, cell.build]

    @cached_property
    def failed(self) -> list[FailedTests]:
        """The tests that did not pass: those with the same outcome and message together."""
        names: dict[tuple[Outcome, str], dict[str, None]] = {}
        cells: dict[tuple[Outcome, str], set[int]] = {}
        for number, cell in enumerate(self.cells):
            for test in cell.tests:
                if test.outcome is not Outcome.PASS:
                    key = (test.outcome, test.message)
                    names.setdefault(key, {})[test.name] = None
                    cells.setdefault(key, set()).add(number)
        return [FailedTests(*key, list(tests), len(cells[key])) for key, tests in names.items()]

    @cached_property
    def remedies(self) -> list[TriedRemedy]:
        """The remedies that were tried on these cells: cures first, then by the protection given up."""
        tried = []
        for remedy in remedies(self.first):
            same = [result for cell in self.cells for result in cell.remedies if result.name == remedy.name]
            reasons = dict.fromkeys(result.reason for result in same if result.reason)
            defects = dict.fromkeys(defect for result in same for defect in result.defects)
            tried.append(TriedRemedy(remedy, list(reasons), list(defects)))
        return tried

    @property
    def cures(self) -> list[TriedRemedy]:
        return [tried for tried in self.remedies if tried.cures]

    @property
    def others(self) -> list[TriedRemedy]:
        return [tried for tried in self.remedies if not tried.cures]

    @property
    def commands(self) -> list[str]:
        return [" ".join(cell.rerun.split()) for cell in self.cells if cell.rerun]

    def shells(self, run: str) -> list[str]:
        """Return the command that opens a shell in the first of these cells; none if no test ran there."""
        return [" ".join(self.first.shell(run).split())] if self.first.tests else []

    @property
    def details(self) -> str:
        """Say what is folded, as the heading of the section's details."""
        tests = len({name for failed in self.failed for name in failed.names})
        counts = {"tests that did not pass": tests, "other remedies": len(self.others)}
        told = [f"{what}: {count}" for what, count in counts.items() if count]
        return "; ".join([*told, "how to run it again"])


def sections(run: RunResult, misdiagnosis: Misdiagnosis = lambda _: "") -> list[Section]:
    """Group the cells of a run that have something to tell, the unexpected ones first."""
    headings = columns_of(run)
    by_key: dict[object, Section] = {}
    for cell in run.cells:
        if _tells(cell):
            verdict = misdiagnosis(cell)
            by_key.setdefault(_key(cell, verdict), Section([], headings, verdict)).cells.append(cell)
    order = list(LOOKS)
    return sorted(by_key.values(), key=lambda section: order.index(section.first.status))


def _tells(cell: CellResult) -> bool:
    left_out = cell.status in LEFT_OUT
    failed = cell.status is not Status.PASS and not left_out
    return failed or bool((cell.reason and not left_out) or cell.retried or cell.experiment)


def _key(cell: CellResult, misdiagnosis: str) -> object:
    """Return all that cells of one section have in common.

    Messages of tests are left out: the same failure has other words in another release of boxlite.
    """
    return (
        square(cell),
        cell.confidence,
        tuple((cause.name, cause.confidence) for cause in cell.causes),
        cell.reason,
        tuple((test.name, test.outcome) for test in cell.tests if test.outcome is not Outcome.PASS),
        tuple((tried.name, tried.result) for tried in cell.remedies),
        experiment(cell),
        tuple(cell.retried),
        misdiagnosis,
    )


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
        named = [
            str(number)
            if (seed := self.cell.repeats[number - 1].seed) is None
            else f"{number} (--shuffle={seed})"
            for number in numbers[:MOST_REPEATS]
        ]
        more = [f"and {len(numbers) - MOST_REPEATS} more"] if len(numbers) > MOST_REPEATS else []
        return ", ".join([*named, *more]) or "-"

    def named_tests(self, most: int) -> str:
        more = len(self.tests) - most
        return ", ".join(self.tests[:most]) + (f" and {more} more" if more > 0 else "")


def rates_of_run(run: RunResult) -> list[Rate]:
    """Return the rates of all cells that were repeated, the tests that failed in some repeats only first."""
    headings = columns_of(run)
    rates = [rate for cell in run.cells for rate in rates_of_cell(cell, headings[cell.variant, cell.build])]
    return sorted(rates, key=lambda rate: not 0 < rate.rate.failed < rate.rate.ran)


def rates_of_cell(cell: CellResult, heading: str = "") -> list[Rate]:
    """Return the rates of one cell: those that failed most often first."""
    by_repeats: dict[tuple[int, tuple[int, ...]], Rate] = {}
    for rate in cell.rates:
        same = by_repeats.setdefault((rate.ran, tuple(rate.failed_in)), Rate(cell, heading, [], rate))
        same.tests.append(rate.name)
    return sorted(by_repeats.values(), key=lambda rate: -rate.rate.failed / rate.rate.ran)


def conditions(options: RunOptions) -> list[str]:
    """Say under what the suites of a run are run, if it is not the usual."""
    load = f"load in the guests while suites run: {', '.join(options.stress)} (stress-ng)"
    limits = f"limits of tests are {UNDER_STRESS:.0f} times as long; that of boxlite for a box is not"
    texts = [f"{load}; {limits}"] if options.stress else []
    if options.shuffle is not None:
        texts.append(f"tests are shuffled, in the first run of each cell by --shuffle={options.shuffle}")
    return texts


def rates_note(run: RunResult) -> str:
    """Say what the rates are, and what to mind about them."""
    texts = ["The share of repeats in which a test failed, with Wilson's interval at 95 % confidence."]
    if run.run.options.until_fail:
        texts.append("A cell ended at its first failure (--until-fail), so its rate is rather too high.")
    if run.run.options.shuffle is not None:
        texts.append("Each repeat had an order of its own; the option named with it gives that order again.")
    return " ".join(texts)


def hosts_alike(run: RunResult) -> list[tuple[Host, list[str], list[str]]]:
    """Return the hosts of a run, each with the names of those that are alike: it may have had hundreds.

    There is no name if the run had one host. The last list says under what guests ran there, and why.
    """
    under = grouped(
        (host.itself, f"{host.acceleration}: {host.acceleration_reason}") for host in run.run.hosts()
    )
    alike = grouped(
        ((host.model_copy(update={"name": ""}), tuple(lines)), host.name) for host, lines in under.items()
    )
    return [(host, names if len(under) > 1 else [], [*lines]) for (host, lines), names in alike.items()]


def host_names(info: RunInfo) -> dict[Host, str]:
    """The hosts of a run, each by itself with its name."""
    return {host.itself: host.name for host in info.hosts()}


def host_lines(run: RunResult) -> list[str]:
    """Say what each of several hosts ran, and which cells two of them shared; nothing of one host."""
    called = host_names(run.run)
    if len(called) < 2:
        return []
    ran_on = {lane.label: lane.host or run.run.host for lane in run.run.lanes}
    hosts = {label: host.itself for label, host in ran_on.items() if host}
    ran: dict[Host, list[CellResult]] = {host: [] for host in called}
    shared = []
    for cell in run.cells:
        host, other = hosts.get(cell.lane), hosts.get(cell.trials_lane)
        if host:
            ran[host].append(cell)
        if host and other and host != other:
            shared.append(
                f"{name(cell)}: its suite ran on {called[host]}; "
                f"its remedies and changes were tried on {called[other]}"
            )
    lines = []
    for host, cells in ran.items():
        count = f"{counted(len(cells), 'cell')}: {listed(run, cells)}" if cells else "no cell"
        lines.append(f"{called[host]} ran {count}")
    return lines + shared


def time_line(run: RunResult) -> str:
    """Say how long a run took and how busy its guests kept the host; empty if it did not end in one session.

    Empty, too, if it ran nothing.
    """
    info = run.run
    hosts = host_names(info)
    if info.finished is None or info.resumed or info.merged or not hosts:
        return ""
    wall = (info.finished - info.started).total_seconds()
    took, busy = (
        str(timedelta(seconds=round(seconds)))
        for seconds in (wall, sum(lane.processor_seconds or 0.0 for lane in info.lanes))
    )
    processors = sum(host.cpus for host in hosts)
    return f"the run took {took}; its guests kept the processors busy for {busy} of {processors} x {took}"
