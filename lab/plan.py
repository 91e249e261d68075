"""The plan: the cells of a run, how a command line chooses them, and the shards they are split into."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

from lab import causes
from lab.base.errors import UsageError
from lab.builds import Build
from lab.catalog import PASS, Catalog, Guest, Suite, Variant, choose_expectation
from lab.catalog.kernels import OWN, parse_kernel
from lab.record import (
    CellResult,
    CellVerdict,
    Expectation,
    ExperimentPolicy,
    Needs,
    RunInfo,
    RunOptions,
    ShardRecord,
    Status,
    SuiteResult,
    format_cell_folder,
)

# Rounded from the 26 cells of two runs under emulation on two processors. Only their proportion matters here.
PASS_SECONDS, BLOCKED_SECONDS = 45.0, 20.0
# Seconds from the start of a lane to its checkpoint, without the time to build an image. Under emulation on two
# processors a boot alone took 25 to 29 s, a deployment 13 to 20 s. A further lane of a guest restores the boot
# that the first one stored, in 5 to 10 s, and deploys in 10 s.
BRING_UP_SECONDS, BRING_UP_AGAIN_SECONDS = 45.0, 20.0
# Remedies on a blocked cell. On a host where a passing cell takes 80 s, twelve cells took 67 to 396 s, 207 s on
# average.
REMEDIES_SECONDS = 115.0
# An experiment on a passing cell (on the same host: 241 s for 19 forks) and on a blocked one (67 s for two).
BREAKING_SECONDS, TURNING_SECONDS = 135.0, 40.0
# An experiment ends here, whatever it found.
MOST_EXPERIMENT_SECONDS = 900.0

DEFAULT_OPTIONS = RunOptions()

# The package of the program that makes the load; each distribution calls it so.
STRESS_NG = "stress-ng"


# The definitions that every cell has.
OF_EVERY_CELL = ("programs", "seed", "rule set", "deployment")


@dataclass(frozen=True)
class Machine:
    """What a lane boots: a guest, and the arguments that a variant adds to its kernel's command line."""

    guest: Guest
    arguments: str = ""

    @property
    def name(self) -> str:
        return f"{self.guest.name} {self.arguments}".rstrip()


@dataclass(frozen=True)
class Cell:
    """One guest in one variant with one build: what is run and gets a status.

    `trials`: whether remedies and experiments are tried on it. `again`: the command that runs it again, if that
    is not `lab matrix`, because its variant has no file.
    """

    guest: Guest
    variant: Variant
    build: Build
    trials: bool = True
    again: str = ""

    @property
    def folder(self) -> Path:
        """The folder for its evidence, relative to the run's folder."""
        return format_cell_folder(self.guest.name, self.variant.name, self.build.name)

    @property
    def name(self) -> str:
        return f"{self.guest.name}/{self.variant.name}/{self.build.name}"

    @property
    def suite(self) -> Suite:
        return self.build.suite

    @property
    def machine(self) -> Machine:
        return Machine(self.guest, " ".join(self.variant.kernel_arguments))

    @property
    def own_causes(self) -> list[str]:
        """The causes that the guest has by itself, and the bug of boxlite's that its suite meets everywhere."""
        return [*self.guest.own_causes, *filter(None, [self.suite.expect.cause])]

    @cached_property
    def expected(self) -> Expectation:
        """What guest, suite and variant expect; a pass if the suite needs nothing of what the cause breaks."""
        turned = [self.variant.turns.get(cause, cause) for cause in self.own_causes]
        expect = choose_expectation(
            *(Expectation(status="xfail", cause=cause) for cause in turned if cause != PASS),
            self.variant.expect,
        )
        is_met = expect.cause is None or self.suite.needing(causes.list_causes()[expect.cause].breaks)
        return expect if is_met else Expectation()

    @property
    def because(self) -> str:
        """What the guest's own settings, or a bug of boxlite's, have to do with it; empty if nothing."""
        guest_cause, cause = self.guest.expect.cause, self.expected.cause
        if cause and cause == self.suite.expect.cause:
            return self.suite.because
        if guest_cause and cause == guest_cause:
            return self.guest.because
        if guest_cause and guest_cause in self.variant.turns:
            return f"the variant lifts {guest_cause}" + (f" and leads to {cause}" if cause else "")
        return ""

    def typical_seconds(self, options: RunOptions = DEFAULT_OPTIONS) -> float:
        """Estimate how long the cell takes from what its variant expects, the same on every host."""
        always = self.trials and options.experiments is ExperimentPolicy.ALWAYS
        if (cause := self.expected.cause) is None:
            return self.suite.length * (PASS_SECONDS + (BREAKING_SECONDS if always else 0.0))
        # Where boxes start in the sandbox, nearly all tests run to their ends.
        is_blocked = Needs.SANDBOX.includes(causes.list_causes()[cause].breaks)
        seconds = BLOCKED_SECONDS if is_blocked else PASS_SECONDS
        seconds = self.suite.length * (seconds + (TURNING_SECONDS if always else 0.0))
        return seconds + (self.remedies_seconds if options.remedies else 0.0)

    @property
    def remedies_seconds(self) -> float:
        """Estimate how long remedies take if the cell is blocked; 0 if none are tried on it."""
        return self.suite.length * REMEDIES_SECONDS if self.trials else 0.0

    def rerun(self, options: RunOptions) -> str:
        """Return a command line that runs exactly this cell again."""
        return self.again or format_rerun(self.guest.argument, self.variant.name, self.build.argument, options)

    def under(self, options: RunOptions) -> "Cell":
        """The cell with what the options need of its guest: stress-ng, if it is put under load."""
        return replace(self, guest=self.guest.with_packages(STRESS_NG)) if options.stress else self

    def result(self, status: Status, *, reason: str = "") -> CellResult:
        """Return a result for this cell that has only a status and a reason."""
        return self.judged_result(SuiteResult(), CellVerdict(status=status, reason=reason))

    def judged_result(self, suite: SuiteResult, verdict: CellVerdict) -> CellResult:
        """Return the result for this cell that its suite led to, before anything is tried on it."""
        return CellResult(
            guest=self.guest.name,
            kernel=self.guest.kernel.argument if self.guest.kernel else "",
            variant=self.variant.name,
            build=self.build.name,
            expected=self.expected,
            differs=self.variant.differs,
            suite=suite,
            verdict=verdict,
        )


def format_rerun(guest: str, variant: str, build: str | None, options: RunOptions) -> str:
    """Return a command line that runs one cell.

    `guest` names the guest with its kernel; `build` is an argument for --build, or None for the newest.
    """
    words = ["lab", "matrix", "-g", guest, "-v", variant]
    words += ["--build", build] if build else []
    words += ["--cold"] if options.cold else []
    words += ["--repeat", str(options.repeat)] if options.repeat > 1 else []
    words += [f"--shuffle={options.shuffle}"] if options.shuffle is not None else []
    words += [f"--stress={','.join(options.stress)}"] if options.stress else []
    words += ["--until-fail"] if options.until_fail else []
    words += ["--rootfs", options.rootfs] if options.rootfs else []
    words += [] if options.remedies or options.cold else ["--no-remedies"]
    match options.experiments:
        case ExperimentPolicy.ALWAYS:
            words.append("--experiment")
        case ExperimentPolicy.NEVER if not options.cold:
            words.append("--no-experiment")
    return shlex.join(words)


@dataclass(frozen=True)
class Choice:
    """The guests and variants that were chosen, in the order in which reports show them."""

    guests: list[Guest]
    variants: list[Variant]

    def cells(self, builds: Sequence[Build]) -> list[Cell]:
        return [
            Cell(guest, variant, build)
            for guest in self.guests
            for variant in self.variants
            for build in builds
        ]


def choose_cells(
    catalog: Catalog,
    *,
    set_name: str | None = None,
    guests: Sequence[str] = (),
    variants: Sequence[str] = (),
    kernels: Sequence[str] = (),
) -> Choice:
    """Look up guests and variants by name, and put each kernel under each guest.

    A set lists guests, variants and kernels; what is named beside it overrides its lists. Without a set, the
    lists are all guests and all variants of the catalog, stock first, and guests have their own kernels. Raises
    UsageError for a name that is not in the catalog, and for a kernel that is none or cannot be chosen.
    """
    definition = catalog.set(set_name) if set_name is not None else None
    stock_first = sorted(catalog.variants, key=lambda name: (name != "stock", name))
    guest_names = guests or (definition.guests if definition else catalog.guests)
    variant_names = variants or (definition.variants if definition else stock_first)
    kernel_names = kernels or (definition.kernels if definition else [])
    base_guests = [catalog.guest(name) for name in dict.fromkeys(guest_names)]
    under = [
        guest if kernel == OWN else guest.with_kernel(parse_kernel(kernel))
        for guest in base_guests
        for kernel in dict.fromkeys(kernel_names or [OWN])
    ]
    by_name = {guest.name: guest for guest in under}
    for guest in under:
        if (other := by_name[guest.name]) != guest:
            raise UsageError(
                f"{guest.argument} and {other.argument} would both be called {guest.name}",
                hint="rename one of the files, or run them apart",
            )
    return Choice(list(by_name.values()), [catalog.variant(name) for name in dict.fromkeys(variant_names)])


@dataclass(frozen=True)
class Shard:
    """One shard of a plan: `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "I/N". Raises UsageError."""
        number, slash, count = text.partition("/")
        digits = number.isdecimal() and count.isdecimal() and len(number) <= len(count) <= 4
        if slash and digits and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise UsageError(f"--shard {text}: not of the form I/N with I from 1 to N", hint="for example 1/3")

    def of(self, cells: Sequence[Cell], options: RunOptions = DEFAULT_OPTIONS) -> list[Cell]:
        return self._all(cells, options)[self.number - 1]

    def _all(self, cells: Sequence[Cell], options: RunOptions) -> list[list[Cell]]:
        """All shards of a plan. Every cell is in exactly one shard; shards take about the same time.

        A shard is a contiguous piece of the plan. If the plan has enough guests, it is cut only between them:
        no guest is booted for two shards. The split does not depend on the host: the same command line gives
        the same shards everywhere.
        """
        shards: list[list[Cell]] = [[] for _ in range(self.count)]
        pieces = [list(of_guest) for _, of_guest in groupby(cells, key=lambda cell: cell.guest.name)]
        if len(pieces) < self.count:
            pieces = [[cell] for cell in cells]
        typical = [sum(cell.typical_seconds(options) for cell in piece) for piece in pieces]
        total, seconds_so_far, number = sum(typical), 0.0, 0
        for pieces_to_come, piece, seconds in zip(range(len(pieces), 0, -1), pieces, typical, strict=True):
            middle = seconds_so_far + seconds / 2
            seconds_so_far += seconds
            # Leave no shard empty if there are enough pieces: skip none, and keep one for each that is left.
            by_time = max(int(middle / total * self.count) + 1, self.count - pieces_to_come + 1)
            number = min(by_time, number + 1)
            shards[number - 1] += piece
        return shards

    def record(self, cells: Sequence[Cell], options: RunOptions) -> ShardRecord:
        """Return this shard of the plan `cells` as the run's record keeps it."""
        sizes = [len(shard) for shard in self._all(cells, options)]
        return ShardRecord(
            number=self.number, count=self.count, plan=[cell.name for cell in cells], sizes=sizes
        )


def choose_shard_cells(cells: Sequence[Cell], shard: Shard | None, options: RunOptions) -> list[Cell]:
    """Return the plan's cells as a run of this shard, or of the whole plan, runs them with these options.

    Raises UsageError for a shard that would have no cell.
    """
    shard_cells = shard.of(cells, options) if shard else cells
    if shard and not shard_cells:
        raise UsageError(
            f"--shard {shard}: the plan has {len(cells)} cells, too few for so many shards",
            hint=f"split it into at most {len(cells)} shards",
        )
    return [cell.under(options) for cell in shard_cells]


@dataclass(frozen=True)
class PlannedRun:
    """A run that is ready to go: its cells, its record so far, and the results it keeps if it is resumed.

    `earlier_results` are by the folders of their cells.
    """

    folder: Path
    cells: list[Cell]
    info: RunInfo
    earlier_results: dict[Path, CellResult] = field(default_factory=dict)

    @property
    def complete(self) -> list[CellResult]:
        """The kept results on which nothing more is to be tried."""
        return [result for result in self.earlier_results.values() if not result.has_more_to_try]

    @property
    def cells_to_run(self) -> list[Cell]:
        """The cells to run, and the kept cells on which more is to be tried."""
        return [
            cell
            for cell in self.cells
            if cell.folder not in self.earlier_results or self.earlier_results[cell.folder].has_more_to_try
        ]
