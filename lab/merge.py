"""Joins the shards of a plan to one run."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab import builds
from lab.base.errors import LabError, UsageError
from lab.base.files import A_RUN, clean_text, explain_full_disk, is_full, make_folder
from lab.base.notices import announce
from lab.causes.evidence import MISSING, explain_unreadable
from lab.plan import OF_EVERY_CELL, format_rerun
from lab.record import (
    AT,
    BuildRecord,
    CellResult,
    CellVerdict,
    Expectation,
    LaneRecord,
    RunInfo,
    RunResult,
    Status,
)


def merge_shards(shards: Sequence[tuple[Path, RunResult]], folder: Path, *, partial: bool = False) -> RunResult:
    """Join shards of one plan into one run in `folder`, and copy their evidence.

    Each shard is its folder and its record. With `partial`, shards may be missing: their cells are `not-run`,
    and the run can be resumed. Raises UsageError for shards that overlap, differ in their plan, or are missing.
    """
    joined = _join(shards)
    cells = joined.cells
    infos = [shard.run for _, shard in shards]
    first = infos[0]
    assert first.shard is not None
    plan, count = first.shard.plan, first.shard.count
    # Shards are contiguous pieces of the plan.
    numbers = [number for number, size in enumerate(first.shard.sizes, 1) for _ in range(size)]
    missing = {name: number for name, number in zip(plan, numbers, strict=True) if name not in cells}
    lost = sorted(set(missing.values()))
    if missing and not partial:
        which_ones = f"shard{'s' if len(lost) > 1 else ''} " + ", ".join(f"{number}/{count}" for number in lost)
        raise UsageError(
            f"{which_ones} {'are' if len(lost) > 1 else 'is'} missing: "
            f"{len(missing)} of the plan's {len(plan)} cells are in none of these runs",
            hint=f"run what is missing with --shard, then merge all {count} shards; or add --partial: then "
            "those cells are not-run, and `lab matrix --resume` runs them",
        )
    results = []
    for name in plan:
        if name in cells:
            results.append(cells[name][1])
            continue
        guest, variant, build = name.split("/", 2)
        argument = next(
            (builds.format_argument(record) for record in first.builds if record.name == build), build
        )
        # What a variant should do is in the record of another of its cells.
        expected = next((cell.expected for _, cell in cells.values() if cell.variant == variant), Expectation())
        # So is where a kernel's file is; a package is in the guest's name.
        kernels = (cell.kernel for _, cell in cells.values() if cell.guest == guest)
        kernel = next(kernels, guest.partition(AT)[2])
        lost_cell = CellResult(
            guest=guest,
            kernel=kernel,
            variant=variant,
            build=build,
            expected=expected,
            verdict=CellVerdict(status=Status.NOT_RUN, reason=f"shard {missing[name]}/{count} was lost"),
        )
        command = format_rerun(lost_cell.guest_argument, variant, argument, first.options)
        results.append(lost_cell.with_parts(rerun=command))
    # The run has a host only if all lanes of all shards ran on the same one.
    hosts = {host.itself: host for info in infos for host in info.hosts()}
    info = RunInfo(
        id=folder.name,
        started=min(info.started for info in infos),
        finished=max((info.finished or info.started) for info in infos),
        command=first.command,
        lab=first.lab,
        interrupted=any(info.interrupted for info in infos),
        options=first.options,
        definitions=joined.definitions,
        lost_shards=lost,
        host=hosts.popitem()[1] if len(hosts) == 1 else None,
        builds=joined.builds,
        # Their steps are in `merged`, under the labels that the shards gave their lanes.
        lanes=joined.lanes,
        host_names=list(dict.fromkeys(name for info in infos for name in info.host_names)),
        merged=infos,
    )
    with _whole_or_absent(folder), explain_full_disk(folder, A_RUN):
        copied = [copy_evidence(folder, cells[c.name][0], c) if c.name in cells else c for c in results]
        run = RunResult(run=info, cells=copied)
        run.write(folder)
    return run


@contextmanager
def _whole_or_absent(folder: Path) -> Iterator[None]:
    """Make a run's folder, and remove what the block put into it if the block fails."""
    is_new = not folder.exists()
    make_folder(folder)
    earlier = set(folder.iterdir())
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for entry in set(folder.iterdir()) - earlier:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            if is_new:
                folder.rmdir()
        raise


@dataclass(frozen=True)
class JoinedShards:
    """What the records of all shards hold together; `cells` are by name, each with its shard's folder."""

    definitions: dict[str, str]
    builds: list[BuildRecord]
    lanes: list[LaneRecord]
    cells: dict[str, tuple[Path, CellResult]]


def _join(shards: Sequence[tuple[Path, RunResult]]) -> JoinedShards:
    """Join the records of shards.

    Lanes and their cells are labelled with the shard, and each lane says by itself what it ran on. Raises
    UsageError for a run that is no shard of their plan, or if two of them have the same cell.
    """
    first = shards[0][1].run
    digests = dict(first.definitions)
    # Each build once, with all files that any shard deployed.
    records: dict[str, BuildRecord] = {}
    lanes: list[LaneRecord] = []
    cells: dict[str, tuple[Path, CellResult]] = {}
    for path, shard in shards:
        info = shard.run
        if info.shard is None or first.shard is None:
            raise UsageError(f"{path} is not a shard", hint="run its cells with --shard I/N")
        wrong = []
        if (info.shard.plan, info.shard.count) != (first.shard.plan, first.shard.count):
            wrong.append("another plan")
        if info.options.with_values(retries=first.options.retries) != first.options:
            wrong.append("other options")
        both = {*OF_EVERY_CELL, *(info.definitions.keys() & digests.keys())}
        wrong += [f"another {name}" for name in sorted(both) if info.definitions.get(name) != digests.get(name)]
        for build in info.builds:
            record = records.setdefault(build.name, build.with_values(files={}))
            if any(record.files.get(file, digest) != digest for file, digest in build.files.items()):
                wrong.append(f"another build {build.name}")
            record.files.update(build.files)
        if wrong:
            raise UsageError(f"{path} is not a shard of the same plan as run {first.id}: {', '.join(wrong)}")
        digests |= info.definitions
        prefix = f"{info.shard}: "
        for lane in info.lanes:
            lanes.append(lane.in_run(prefix + lane.label, lane.host or info.host))
        for cell in shard.cells:
            if cell.name in cells:
                raise UsageError(
                    f"{cells[cell.name][0]} and {path} overlap: both have {cell.name}",
                    hint="leave one of them out; lab compare shows how they differ",
                )
            cells[cell.name] = path, cell.with_parts(history=cell.history.on_lanes(prefix.__add__))
    return JoinedShards(digests, list(records.values()), lanes, cells)


def copy_evidence(
    folder: Path, source: Path, cell: CellResult, places: Mapping[str, str] | None = None
) -> CellResult:
    """Copy the evidence of a cell from the run in `source`, but nothing that is no file of that run's own.

    `places` says which file of `source` it is, where it has another name there.

    Raises UsageError for evidence outside of the cell's folder.
    """
    evidence = []
    for name in cell.evidence:
        if not Path(name).is_relative_to(cell.folder) or ".." in Path(name).parts:
            raise UsageError(f"{source}: evidence outside of the cell's folder: {clean_text(name)}")
        place = (places or {}).get(name, name)
        if (obstacle := explain_unreadable(source, place)) not in ("", MISSING):
            announce(f"left out: {clean_text(str(source / place))}: {obstacle}")
            continue
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / place, target, follow_symlinks=False)
        except OSError as error:
            if is_full(error):  # It names the file that was read.
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise LabError(f"evidence of {source} cannot be copied: {error.strerror}: {name}") from error
        evidence.append(name)
    return cell.with_parts(evidence=evidence)
