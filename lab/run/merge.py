"""Joining the shards of a plan into one run."""

import shutil
from collections.abc import Collection, Sequence
from itertools import chain, repeat
from pathlib import Path

from lab import builds
from lab.base.errors import LabError, UsageError
from lab.base.files import make_folder, plain
from lab.base.notices import progress
from lab.causes.evidence import MISSING, why_not
from lab.plan import rerun
from lab.record import BuildRecord, CellResult, Expectation, LaneRecord, RunInfo, RunResult, ShardRecord, Status
from lab.run import definitions
from lab.run.labels import relabelled

# How many shards an error names.
MOST_NAMED = 10


class LostShards:
    """What the shards that are there lack of their plan: `cells`, by name, and the `numbers` of the others."""

    def __init__(self, shards: Sequence[RunResult], there: Collection[str]) -> None:
        """`there` names the cells of the shards."""
        self._shards = shards
        self._first = shards[0].run
        own = _shard_of(self._first)
        self.count = own.count
        missing = {*range(1, own.count + 1)} - {_shard_of(each.run).number for each in shards}
        # Shards are contiguous pieces of the plan.
        numbers = chain.from_iterable(repeat(number, size) for number, size in enumerate(own.sizes, 1))
        self._number = dict(zip(own.plan, numbers, strict=True))
        self.cells = [name for name in own.plan if name not in there]
        self.numbers = sorted(missing & {self._number[name] for name in self.cells})

    def error(self) -> UsageError:
        """Say what is missing, and what to do."""
        verb, it = ("are", "them") if len(self.numbers) > 1 else ("is", "it")
        missing = f"{self._names()} {verb} missing: " if self.numbers else ""
        planned = len(_shard_of(self._first).plan)
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


def _shard_of(info: RunInfo) -> ShardRecord:
    assert info.shard is not None
    return info.shard


def merge(shards: Sequence[tuple[Path, RunResult]], folder: Path, *, partial: bool = False) -> RunResult:
    """Join shards of one plan into one run in `folder`, and copy their evidence.

    Each shard is its folder and its record. With `partial`, shards may be missing: their cells are `not-run`,
    and the run can be resumed. Raises UsageError for shards that overlap, differ in their plan, or are missing.
    """
    first = shards[0][1].run
    for number, (path, shard) in enumerate(shards):
        for _, before in shards[: max(number, 1)]:
            _check_shard(path, shard.run, before.run)
    assert first.shard is not None
    infos = [shard.run for _, shard in shards]
    own = relabelled([shard for _, shard in shards])
    cells = _by_name([(path, shard) for (path, _), shard in zip(shards, own, strict=True)])
    lost = LostShards([shard for _, shard in shards], cells)
    if lost.cells and not partial:
        raise lost.error()
    make_folder(folder)
    results = [_take(folder, *cells[name]) if name in cells else lost.result(name) for name in first.shard.plan]
    lanes = [lane for shard in own for lane in shard.run.lanes]
    run = RunResult(run=_info(folder.name, infos, lanes, lost.numbers), cells=results)
    run.write(folder)
    return run


def _by_name(shards: Sequence[tuple[Path, RunResult]]) -> dict[str, tuple[Path, CellResult]]:
    """Every cell of the shards, with its shard's folder. Raises UsageError if two shards have the same cell."""
    cells: dict[str, tuple[Path, CellResult]] = {}
    for path, shard in shards:
        for cell in shard.cells:
            name = f"{cell.guest}/{cell.variant}/{cell.build}"
            if name in cells:
                raise UsageError(
                    f"{cells[name][0]} and {path} overlap: both have {name}",
                    hint="leave one of them out; lab compare says in what they differ",
                )
            cells[name] = (path, cell)
    return cells


def _info(name: str, infos: list[RunInfo], lanes: list[LaneRecord], lost: list[int]) -> RunInfo:
    """What holds for the merged run; it has a host only if all lanes of all shards ran on the same one."""
    hosts = {host for info in infos for host in info.hosts()}
    return infos[0].model_copy(
        update={
            "id": name,
            "started": min(info.started for info in infos),
            "finished": max((info.finished or info.started) for info in infos),
            "resumed": [],
            "interrupted": any(info.interrupted for info in infos),
            "shard": None,
            "lost_shards": lost,
            "host": hosts.pop() if len(hosts) == 1 else None,
            "definitions": {key: value for info in infos for key, value in info.definitions.items()},
            "builds": _builds(infos),
            "lanes": lanes,
            "processor_time": [each for info in infos for each in info.processor_time],
            "merged": infos,
        }
    )


def _check_shard(path: Path, info: RunInfo, first: RunInfo) -> None:
    """Raise UsageError if a run is no shard, or not one of the same plan as the first."""
    if info.shard is None:
        raise UsageError(f"{path} is not a shard", hint="run its cells with --shard I/N")
    assert first.shard is not None or info is first
    wrong = []
    if info.shard.plan != (first.shard.plan if first.shard else None) or (
        first.shard and info.shard.count != first.shard.count
    ):
        wrong.append("another plan")
    if info.options.model_copy(update={"retries": 0}) != first.options.model_copy(update={"retries": 0}):
        wrong.append("other options")
    names = {*definitions.OF_EVERY_CELL, *(info.definitions.keys() & first.definitions.keys())}
    changed = definitions.differences(info.definitions, first.definitions)
    wrong += [f"another {name}" for name in changed if name in names]
    for build in info.builds:
        other = next((each for each in first.builds if each.name == build.name), None)
        if other and any(build.files[f] != other.files[f] for f in build.files.keys() & other.files.keys()):
            wrong.append(f"another build {build.name}")
    if wrong:
        raise UsageError(f"{path} is not a shard of the same plan as run {first.id}: {', '.join(wrong)}")


def _take(folder: Path, source: Path, cell: CellResult) -> CellResult:
    """Copy the evidence of a cell, but nothing that is no file of the shard's own.

    Raises UsageError for evidence outside of the cell's folder.
    """
    kept = []
    for name in cell.evidence:
        if not Path(name).is_relative_to(cell.folder) or ".." in Path(name).parts:
            raise UsageError(f"{source}: evidence outside of the cell's folder: {plain(name)}")
        if (why := why_not(source, name)) not in ("", MISSING):
            progress(f"left out: {plain(str(source / name))}: {why}")
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(source / name, target, follow_symlinks=False)
        except OSError as error:
            raise LabError(f"evidence of {source} cannot be copied: {error.strerror}: {name}") from error
        kept.append(name)
    return cell.model_copy(update={"evidence": kept})


def _builds(infos: Sequence[RunInfo]) -> list[BuildRecord]:
    """Each build once, with all files that any shard deployed."""
    found: dict[str, BuildRecord] = {}
    for info in infos:
        for build in info.builds:
            known = found.setdefault(build.name, build.model_copy(update={"files": {}}))
            known.files.update(build.files)
    return list(found.values())
