"""What is run: the choice of guests and variants by name, and shards of it that take about the same time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.base.errors import UsageError
from lab.builds import Build
from lab.catalog import Catalog, Guest, Variant
from lab.plan.cell import DEFAULT_OPTIONS, Cell
from lab.record import RunOptions, ShardRecord


@dataclass(frozen=True)
class Choice:
    """The guests and variants that were chosen, in the order in which reports show them."""

    guests: list[Guest]
    variants: list[Variant]

    def cells(self, builds: Sequence[Build]) -> list[Cell]:
        """Return a cell for each guest in each variant with each build."""
        return [
            Cell(guest, variant, build)
            for guest in self.guests
            for variant in self.variants
            for build in builds
        ]


def choose(
    catalog: Catalog,
    *,
    set_name: str | None = None,
    guests: Sequence[str] = (),
    variants: Sequence[str] = (),
) -> Choice:
    """Look up guests and variants by name.

    A set lists guests and variants; `guests` and `variants` override its lists. Without a set, the lists are
    all guests and all variants of the catalog. Raises UsageError for a name that is not in the catalog.
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
        """Return the cells of this shard. Every cell is in exactly one shard; shards take about the same time.

        A shard is a contiguous piece of the plan, so that few shards boot the same guest. The split does not
        depend on the host: the same command line gives the same shards everywhere.
        """
        numbers = self._numbers(cells, options)
        return [cell for cell, number in zip(cells, numbers, strict=True) if number == self.number]

    def _numbers(self, cells: Sequence[Cell], options: RunOptions) -> list[int]:
        """The number of the shard that each cell is in."""
        typical = [cell.typical_seconds(options) for cell in cells]
        total = sum(typical)
        numbers, before, shard = [], 0.0, 0
        for left, seconds in zip(range(len(cells), 0, -1), typical, strict=True):
            middle = before + seconds / 2
            before += seconds
            # Leave no shard empty if there are enough cells: skip none, and keep a cell for each that is left.
            wanted = max(int(middle / total * self.count) + 1, self.count - left + 1)
            shard = min(wanted, shard + 1)
            numbers.append(shard)
        return numbers

    def record(self, cells: Sequence[Cell], options: RunOptions) -> ShardRecord:
        """Return this shard of the plan `cells` as the run's record keeps it."""
        counted = Counter(self._numbers(cells, options))
        return ShardRecord(
            number=self.number,
            count=self.count,
            plan=[cell.name for cell in cells],
            sizes=[counted[number] for number in range(1, self.count + 1)],
        )


def cells_of_shard(cells: Sequence[Cell], shard: Shard | None, options: RunOptions) -> list[Cell]:
    """Return the plan's cells that a run of this shard, or of the whole plan, runs.

    Raises UsageError for a shard that would have no cell.
    """
    chosen = shard.of(cells, options) if shard else list(cells)
    if shard and not chosen:
        raise UsageError(
            f"--shard {shard}: the plan has {len(cells)} cells, too few for so many shards",
            hint=f"split it into at most {len(cells)} shards",
        )
    return chosen
