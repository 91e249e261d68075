"""Shards of a plan that are missing where the others are merged, and the cells that only they have."""

from collections.abc import Collection, Sequence
from itertools import chain, repeat

from lab import builds
from lab.base.errors import UsageError
from lab.plan import rerun
from lab.record import CellResult, Expectation, RunInfo, RunResult, ShardRecord, Status

# How many shards an error names.
MOST_NAMED = 10


class LostShards:
    """What the shards that are there lack of their plan: `cells`, by name, and the `numbers` of the others."""

    def __init__(self, shards: Sequence[RunResult], there: Collection[str]) -> None:
        """`there` names the cells of the shards."""
        self._shards = shards
        self._first = shards[0].run
        own = _shard(self._first)
        self.count = own.count
        missing = {*range(1, own.count + 1)} - {_shard(each.run).number for each in shards}
        # Shards are contiguous pieces of the plan.
        numbers = chain.from_iterable(repeat(number, size) for number, size in enumerate(own.sizes, 1))
        self._number = dict(zip(own.plan, numbers, strict=True))
        self.cells = [name for name in own.plan if name not in there]
        self.numbers = sorted(missing & {self._number[name] for name in self.cells})

    def error(self) -> UsageError:
        """Say what is missing, and what to do."""
        verb, it = ("are", "them") if len(self.numbers) > 1 else ("is", "it")
        missing = f"{self._names()} {verb} missing: " if self.numbers else ""
        planned = len(_shard(self._first).plan)
        return UsageError(
            f"{missing}{len(self.cells)} of the plan's {planned} cells are in none of these runs",
            hint=f"run {it} with --shard, then merge all {self.count} shards; or add --partial: then those "
            "cells are not-run, and `lab matrix --resume` runs them",
        )

    def result(self, name: str) -> CellResult:
        """What is known of a cell that no shard has."""
        guest, variant, build = name.split("/", 2)
        first = self._first
        wanted = next((builds.argument(each) for each in first.builds if each.name == build), build)
        example = next((c for shard in self._shards for c in shard.cells if c.variant == variant), None)
        return CellResult(
            guest=guest,
            variant=variant,
            build=build,
            status=Status.NOT_RUN,
            expected=example.expected if example else Expectation(),
            reason=self._reason(name),
            rerun=rerun(guest, variant, wanted, first.options),
        )

    def _reason(self, name: str) -> str:
        number = self._number[name]
        if number in self.numbers:
            return f"shard {number}/{self.count} was lost"
        lost = f", without {self._names()}" if self.numbers else ""
        return f"in none of the merged shards{lost}"

    def _names(self) -> str:
        """The lost shards as words; empty if there is none."""
        named = [f"{number}/{self.count}" for number in self.numbers[:MOST_NAMED]]
        more = len(self.numbers) - len(named)
        words = [*named, *([f"{more} more"] if more else [])]
        if not words:
            return ""
        listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
        return f"shard{'s' if len(self.numbers) > 1 else ''} {listed}"


def _shard(info: RunInfo) -> ShardRecord:
    assert info.shard is not None
    return info.shard
