"""Splitting a plan into shards of about the same time."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.base.errors import UsageError
from lab.plan.cell import AS_EVER, Cell
from lab.record import RunOptions


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
