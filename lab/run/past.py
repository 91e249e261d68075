"""Runs on disk: what each is, its deletion, one of its cells looked at again, and shards joined to one run."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab import builds
from lab.base.errors import LabError, UsageError, unknown_name
from lab.base.files import A_RUN, explained, is_full, make_folder, plain
from lab.base.locks import is_locked
from lab.base.notices import progress
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Catalog
from lab.causes.evidence import MISSING, why_not
from lab.images import store
from lab.lane import prepare_image, upkeep
from lab.plan import Cell, rerun
from lab.record import (
    AT,
    RESULTS_FILE,
    BuildRecord,
    CellResult,
    Expectation,
    ExperimentPolicy,
    LaneRecord,
    RunResult,
    Status,
)
from lab.run import start
from lab.run.journal import LOCK, locked_folder


class State(StrEnum):
    """How far a run is."""

    COMPLETE = "complete"
    BEING_MADE = "being made"
    INTERRUPTED = "interrupted"
    # It was merged without some of its shards.
    PARTIAL = "partial"
    # Its lab died before it could write that the run ended.
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class PastRun:
    """One folder of the lab's runs; `size` is in bytes. If `record` cannot be read, `fault` says why."""

    folder: Path
    size: int
    is_being_made: bool
    record: RunResult | None
    fault: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        if self.is_being_made:
            return State.BEING_MADE
        if self.record is None:
            return State.DAMAGED
        if self.record.run.is_partial:
            return State.PARTIAL
        if self.record.run.interrupted:
            return State.INTERRUPTED
        return State.COMPLETE if self.record.run.finished else State.UNFINISHED


def folders(runs: Path) -> list[Path]:
    """The folders of the lab's runs, by name and so by their start."""
    return sorted(folder for folder in runs.iterdir() if folder.is_dir()) if runs.is_dir() else []


def read(folder: Path) -> PastRun:
    """Read what a folder of the lab's runs holds, damaged or not."""
    making, size = is_locked(folder / LOCK), upkeep.size(folder)
    try:
        return PastRun(folder, size, making, RunResult.read(folder))
    except UsageError as error:
        return PastRun(folder, size, making, None, str(error.args[0]))


def to_delete(runs: Path, names: Sequence[str]) -> list[PastRun]:
    """The runs of these names, if all may be deleted. Raises UsageError for any other name."""
    chosen = []
    for name in dict.fromkeys(names):
        folder = runs / name
        if Path(name).name != name or name in ("", "..") or folder.is_symlink():
            raise UsageError(
                f"{name!r} is not the name of one of the lab's own runs",
                hint="give a name that `lab runs` lists; a run elsewhere is deleted with rm -r",
            )
        if not folder.is_dir():
            raise unknown_name("run", name, [folder.name for folder in folders(runs)])
        if not (folder / RESULTS_FILE).is_file():
            raise UsageError(
                f"{folder} has no {RESULTS_FILE}, so it may be no run",
                hint="look at it, and delete it with rm -r",
            )
        run = read(folder)
        if run.is_being_made:
            raise UsageError(f"run {name} is being made", hint="end that lab first, with Ctrl-C")
        chosen.append(run)
    return chosen


def delete(run: PastRun) -> None:
    """Delete a run's folder. Raises UsageError if a lab is at work in it by now.

    `results.json` goes last: if this is stopped halfway, the rest is still a run that can be deleted.
    """
    with locked_folder(run.folder):
        for entry in run.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in (RESULTS_FILE, LOCK):
                entry.unlink()
        (run.folder / RESULTS_FILE).unlink()
    run.folder.rmdir()


# -- a cell of a run


@dataclass(frozen=True)
class RecordedCell:
    """A cell of a run as it can be run now.

    `own_rootfs` is the layout that the run was given, None for the lab's own. `warnings` say in what the cell
    may differ by now from what the run saw.
    """

    cell: Cell
    result: CellResult
    own_rootfs: Path | None
    warnings: Sequence[str]


def names_of_cells(run: RunResult) -> list[str]:
    """The names of a run's cells, those that failed first; with their builds if the run has several."""
    several = len({cell.build for cell in run.cells}) > 1
    cells = sorted(run.cells, key=lambda cell: cell.status.as_expected)
    return [cell.name if several else f"{cell.guest}/{cell.variant}" for cell in cells]


def find_cell(
    run: RunResult, name: str, catalog: Catalog, paths: Paths, named: Sequence[str] = (), again: str = ""
) -> RecordedCell:
    """The cell GUEST/VARIANT or GUEST/VARIANT/BUILD of a run. `named` and `again`: see `resolve_recorded`.

    Raises UsageError if the run has no such cell, or several, or if its build has to be named, or its build or
    root file system is not what it was; LabError if that could not be found out.
    """
    matching = [cell for cell in run.cells if name in (cell.name, f"{cell.guest}/{cell.variant}")]
    if not matching:
        raise unknown_name(f"cell of run {run.run.id}", name, names_of_cells(run))
    if len(matching) > 1:
        choices = ", ".join(cell.name for cell in matching)
        raise UsageError(f"run {run.run.id} has {name} with several builds", hint=f"name one of {choices}")
    [result] = matching
    recorded = [build for build in run.run.builds if build.name == result.build]
    build = builds.resolve_recorded(recorded, named, again)[result.build]
    # What the run tried beside the cell decides nothing here.
    options = run.run.options.model_copy(update={"remedies": False, "experiments": ExperimentPolicy.NEVER})
    guest, variant = catalog.guest(result.guest, result.kernel), catalog.variant(result.variant)
    cell = Cell(guest, variant, build).under(options)
    own_rootfs = rootfs.check(Path(options.rootfs)) if options.rootfs else None
    now = start.digests([cell], options)
    before = {name: digest for name, digest in run.run.definitions.items() if name in now}
    changed = start.differences(before, {name: now[name] for name in before})
    if "rootfs" in changed:
        raise UsageError(
            f"the root file system {options.rootfs} changed since run {run.run.id}",
            hint="bring it back, or start a new run with it",
        )
    warnings = [f"changed since run {run.run.id}: {', '.join(changed)}"] if changed else []
    then = {lane.image for lane in run.run.lanes if lane.guest == cell.guest.name}
    # Whoever needs an image that cannot be read says what is wrong with it.
    with suppress(LabError):
        image = store.find(paths, cell.guest)
        ready = prepare_image.find(paths, cell.guest, image) if image else None
        if ready and then and ready.manifest.disk_sha256 not in then:
            warnings.append(f"{cell.guest.name} has another image now than in run {run.run.id}")
    return RecordedCell(cell, result, own_rootfs, warnings)


# -- shards


def merge(shards: Sequence[tuple[Path, RunResult]], folder: Path, *, partial: bool = False) -> RunResult:
    """Join shards of one plan into one run in `folder`, and copy their evidence.

    Each shard is its folder and its record. With `partial`, shards may be missing: their cells are `not-run`,
    and the run can be resumed. Raises UsageError for shards that overlap, differ in their plan, or are missing.
    """
    common, cells = _join(shards)
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
        argument = next((builds.argument(record) for record in first.builds if record.name == build), build)
        # What a variant should do is in the record of another of its cells.
        expected = next((cell.expected for _, cell in cells.values() if cell.variant == variant), Expectation())
        # So is where a kernel's file is; a package is in the guest's name.
        kernels = (cell.kernel for _, cell in cells.values() if cell.guest == guest)
        kernel = next(kernels, guest.partition(AT)[2])
        missed = CellResult(
            guest=guest,
            kernel=kernel,
            variant=variant,
            build=build,
            status=Status.NOT_RUN,
            expected=expected,
            reason=f"shard {missing[name]}/{count} was lost",
        )
        again = rerun(missed.guest_argument, variant, argument, first.options)
        results.append(missed.model_copy(update={"rerun": again}))
    # The run has a host only if all lanes of all shards ran on the same one.
    hosts = {host.itself: host for info in infos for host in info.hosts()}
    update = {
        "id": folder.name,
        "started": min(info.started for info in infos),
        "finished": max((info.finished or info.started) for info in infos),
        "resumed": [],
        "interrupted": any(info.interrupted for info in infos),
        "shard": None,
        "lost_shards": lost,
        "host": hosts.popitem()[1] if len(hosts) == 1 else None,
        # The shards have them under their own labels, in `merged`.
        "steps": [],
        "host_names": list(dict.fromkeys(name for info in infos for name in info.host_names)),
        "merged": infos,
    }
    info = first.model_copy(update=update | common)
    with _whole_or_absent(folder), explained(folder, A_RUN):
        copied = [_take(folder, cells[c.name][0], c) if c.name in cells else c for c in results]
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


def _join(
    shards: Sequence[tuple[Path, RunResult]],
) -> tuple[dict[str, object], dict[str, tuple[Path, CellResult]]]:
    """What the records of all shards hold together, and all cells by name, each with its shard's folder.

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
        if info.options.model_copy(update={"retries": first.options.retries}) != first.options:
            wrong.append("other options")
        both = {*start.OF_EVERY_CELL, *(info.definitions.keys() & digests.keys())}
        wrong += [f"another {name}" for name in sorted(both) if info.definitions.get(name) != digests.get(name)]
        for build in info.builds:
            record = records.setdefault(build.name, build.model_copy(update={"files": {}}))
            if any(record.files.get(file, digest) != digest for file, digest in build.files.items()):
                wrong.append(f"another build {build.name}")
            record.files.update(build.files)
        if wrong:
            raise UsageError(f"{path} is not a shard of the same plan as run {first.id}: {', '.join(wrong)}")
        digests |= info.definitions
        for lane in info.lanes:
            own = {"label": f"{info.shard}: {lane.label}", "host": lane.host or info.host}
            lanes.append(lane.model_copy(update=own))
        for cell in shard.cells:
            if cell.name in cells:
                raise UsageError(
                    f"{cells[cell.name][0]} and {path} overlap: both have {cell.name}",
                    hint="leave one of them out; lab compare says in what they differ",
                )
            labels = {"lane": cell.lane, "trials_lane": cell.trials_lane}
            update = {key: f"{info.shard}: {label}" for key, label in labels.items() if label}
            cells[cell.name] = path, cell.model_copy(update=update)
    return {"definitions": digests, "builds": list(records.values()), "lanes": lanes}, cells


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
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target, follow_symlinks=False)
        except OSError as error:
            if is_full(error):  # It names the file that was read.
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise LabError(f"evidence of {source} cannot be copied: {error.strerror}: {name}") from error
        kept.append(name)
    return cell.model_copy(update={"evidence": kept})
