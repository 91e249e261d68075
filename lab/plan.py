"""The plan: which cells to run."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.builds import ANY, Build
from lab.catalog import Catalog, Guest, Variant
from lab.errors import UsageError
from lab.results import CellResult, Experiments, RunOptions, Status, cell_folder

# Rounded from the 26 cells of two runs under emulation on two processors. Only their proportion matters here.
PASS_SECONDS = 45.0
BLOCKED_SECONDS = 20.0
# Of the remedies that are tried on a blocked cell. Twelve took 67 to 396 s, 207 on average, on a host on which
# a cell that passes took 80.
REMEDIES_SECONDS = 115.0
# Of an experiment on a cell that passes, and on a blocked one. On that host the one took 241 s, for 19 forks,
# and the other 67 s, for two.
BREAKING_SECONDS = 135.0
TURNING_SECONDS = 40.0

AS_EVER = RunOptions()


@dataclass(frozen=True)
class Machine:
    """A guest as lanes boot it: `arguments` are what a variant adds to its kernel's command line."""

    guest: Guest
    arguments: str = ""

    @property
    def name(self) -> str:
        return f"{self.guest.name} {self.arguments}".rstrip()


@dataclass(frozen=True)
class Cell:
    """One square of the matrix, not run yet."""

    guest: Guest
    variant: Variant
    build: Build

    @property
    def folder(self) -> Path:
        """Where its evidence goes, relative to the run's folder."""
        return cell_folder(self.guest.name, self.variant.name, self.build.name)

    @property
    def name(self) -> str:
        return f"{self.guest.name}/{self.variant.name}/{self.build.name}"

    @property
    def machine(self) -> Machine:
        """What its lane boots."""
        return Machine(self.guest, " ".join(self.variant.kernel_arguments))

    def typical_seconds(self, options: RunOptions = AS_EVER) -> float:
        """How long such a cell takes, by what its variant expects: the same on every host."""
        always = options.experiments is Experiments.ALWAYS
        if self.variant.expect.status != "xfail":
            return PASS_SECONDS + (BREAKING_SECONDS if always else 0.0)
        more = (REMEDIES_SECONDS if options.remedies else 0.0) + (TURNING_SECONDS if always else 0.0)
        return BLOCKED_SECONDS + more

    def rerun(self, options: RunOptions) -> str:
        """One command line that runs exactly this cell again."""
        build = None if self.build is ANY else str(self.build.wheel or self.build.version)
        return rerun(self.guest.name, self.variant.name, build, options)

    def result(self, status: Status, *, reason: str = "") -> CellResult:
        """A result for this cell, with nothing in it but its status and why."""
        return CellResult(
            guest=self.guest.name,
            variant=self.variant.name,
            build=self.build.name,
            status=status,
            expected=self.variant.expect,
            reason=reason,
        )


def rerun(guest: str, variant: str, build: str | None, options: RunOptions) -> str:
    """One command line that runs one cell; `build` as --build takes it, None for the newest release."""
    words = ["lab", "matrix", "-g", guest, "-v", variant]
    words += ["--build", build] if build else []
    words += ["--cold"] if options.cold else []
    words += ["--repeat", str(options.repeat)] if options.repeat > 1 else []
    words += ["--rootfs", options.rootfs] if options.rootfs else []
    words += [] if options.remedies or options.cold else ["--no-remedies"]
    match options.experiments:
        case Experiments.ALWAYS:
            words.append("--experiment")
        case Experiments.NEVER if not options.cold:
            words.append("--no-experiment")
    return shlex.join(words)


@dataclass(frozen=True)
class Choice:
    """Which guests in which variants, by name, in the order in which they are shown."""

    guests: list[Guest]
    variants: list[Variant]

    def cells(self, builds: Sequence[Build]) -> list[Cell]:
        return [
            Cell(guest, variant, build)
            for guest in self.guests
            for variant in self.variants
            for build in builds
        ]


@dataclass(frozen=True)
class Part:
    """Which shard of a plan: `number` of `count`, from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """From "I/N". Raises UsageError."""
        number, slash, count = text.partition("/")
        digits = number.isdecimal() and count.isdecimal() and len(number) <= len(count) <= 4
        if slash and digits and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise UsageError(f"--shard {text}: not of the form I/N with I from 1 to N", hint="for example 1/3")

    def of(self, cells: Sequence[Cell], options: RunOptions = AS_EVER) -> list[Cell]:
        """Give the cells of one shard: all shards together are the plan, each of about the same time.

        The plan's order is kept and cut, so that a guest is booted for as few shards as can be. Nothing that
        differs between hosts goes in: the same command line gives the same shards everywhere.
        """
        typical = [cell.typical_seconds(options) for cell in cells]
        total = sum(typical)
        chosen, before, shard = [], 0.0, 0
        for left, cell, seconds in zip(range(len(cells), 0, -1), cells, typical, strict=True):
            middle = before + seconds / 2
            before += seconds
            # No shard is passed over, and the last one is reached, as far as the cells go round.
            wanted = max(int(middle / total * self.count) + 1, self.count - left + 1)
            shard = min(wanted, shard + 1)
            if shard == self.number:
                chosen.append(cell)
        return chosen


def of_part(cells: Sequence[Cell], part: Part | None, options: RunOptions) -> list[Cell]:
    """The cells that a run has of a plan. Raises UsageError for a shard that has nothing to do."""
    chosen = part.of(cells, options) if part else list(cells)
    if part and not chosen:
        raise UsageError(f"--shard {part}: the plan has {len(cells)} cells, too few for so many shards")
    return chosen


def choose(
    catalog: Catalog,
    *,
    set_name: str | None = None,
    guests: Sequence[str] = (),
    variants: Sequence[str] = (),
) -> Choice:
    """The cells that a command line asks for.

    A set names guests and variants; `guests` and `variants` replace its own choice. Without any of them:
    every guest in every variant. Raises UsageError for a name that the catalog does not have.
    """
    chosen = catalog.set(set_name) if set_name is not None else None
    guest_names = guests or (chosen.guests if chosen else catalog.guests)
    variant_names = variants or (chosen.variants if chosen else _stock_first(catalog))
    return Choice(
        [catalog.guest(name) for name in dict.fromkeys(guest_names)],
        [catalog.variant(name) for name in dict.fromkeys(variant_names)],
    )


def _stock_first(catalog: Catalog) -> list[str]:
    return sorted(catalog.variants, key=lambda name: (name != "stock", name))
