"""Beginning a run, taking one up again, and making one run of the shards of a plan."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lab import __version__, builds, remedies
from lab.base.errors import LabError, UsageError
from lab.base.files import make_folder
from lab.base.paths import definitions as definitions_folder
from lab.catalog import Catalog, Suite, Variant, load
from lab.guest.session import program_files
from lab.images import store
from lab.lane import prepare_image
from lab.plan import Cell, Part, of_part, rerun
from lab.record import (
    BuildRecord,
    CellResult,
    Expectation,
    Experiments,
    RunInfo,
    RunOptions,
    RunResult,
    Shard,
    Status,
)


def definitions(cells: Iterable[Cell], suite: Suite, options: RunOptions) -> dict[str, str]:
    """SHA-256 of each definition and program that decides what these cells do, by a name for people."""
    found: dict[str, str] = {}
    for cell in cells:
        guest, variant = cell.guest, cell.variant
        found[f"guest {guest.name}"] = _digest(guest.model_dump_json(), store.inputs_digest(guest))
        found[f"variant {variant.name}"] = _variant_digest(variant)
    if options.experiments is not Experiments.NEVER:
        # Each is a change that may be tried on a cell, and knows a cause.
        found |= {f"variant {name}": _variant_digest(variant) for name, variant in load().variants.items()}
    files = sorted(file for file in suite.folder.glob("*") if file.is_file())
    found[f"suite {suite.name}"] = _digest(*(part for f in files for part in (f.name, f.read_text())))
    seed = definitions_folder() / "cloud-init"
    found["programs"] = _digest(*prepare_image.RECIPE, *(file.read_text() for file in program_files()))
    if options.remedies:
        found |= {f"remedy {name}": remedy.digest for name, remedy in remedies.load().items()}
    if options.rootfs:
        # It names all else by digest. One that is gone has changed.
        index = Path(options.rootfs) / "index.json"
        found["rootfs"] = _digest(index.read_text() if index.exists() else "")
    files = sorted(file for file in seed.iterdir() if file.is_file())
    found["seed"] = _digest(*(file.read_text() for file in files))
    return found


def _variant_digest(variant: Variant) -> str:
    return _digest(variant.model_dump_json(exclude_none=True))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Start:
    """A run to be run: its whole plan, what holds for all of it, and the results that stand already."""

    cells: list[Cell]
    info: RunInfo
    kept: dict[Path, CellResult] = field(default_factory=dict)

    @property
    def whole(self) -> list[CellResult]:
        """The results about which nothing more is to be done."""
        return [result for result in self.kept.values() if not result.has_more_to_try]

    @property
    def left(self) -> list[Cell]:
        """The cells that are to be run, or on which more is to be tried."""
        return [
            cell
            for cell in self.cells
            if cell.folder not in self.kept or self.kept[cell.folder].has_more_to_try
        ]


def begin(
    folder: Path, plan: Sequence[Cell], suite: Suite, *, command: str, options: RunOptions, part: Part | None
) -> Start:
    """A new run of a plan, or of one shard of it. Raises UsageError for a shard that has nothing to do."""
    cells = of_part(plan, part, options)
    info = RunInfo(
        id=folder.name,
        started=datetime.now(UTC),
        command=command,
        lab=__version__,
        options=options,
        definitions=definitions(cells, suite, options),
        shard=Shard(number=part.number, count=part.count, plan=[c.name for c in plan]) if part else None,
        builds=[build.record() for build in dict.fromkeys(cell.build for cell in plan)],
    )
    return Start(cells, info)


def resume(run: RunResult, catalog: Catalog) -> Start:
    """What is missing of a run, an `error` or `not-run` is to be run again; everything else stands.

    Of a cell that stands, what was not tried on it, or met a fault, is tried.

    Raises UsageError where its definitions or builds are not what they were, and says which.
    """
    if run.run.parts:
        raise UsageError(f"run {run.run.id} was merged of others", hint="resume those, and merge again")
    known = {record.name: _same_build(record.name, record.source, record.version) for record in run.run.builds}
    cells = [
        Cell(catalog.guest(cell.guest), catalog.variant(cell.variant), known[cell.build]) for cell in run.cells
    ]
    now = definitions(cells, catalog.suite, run.run.options)
    changed = _differences(run.run.definitions, now)
    if changed:
        raise UsageError(
            f"run {run.run.id} cannot be resumed, changed since: {', '.join(changed)}",
            hint="start a new run, or bring back the definitions it was started with",
        )
    kept = {
        cell.folder: result
        for cell, result in zip(cells, run.cells, strict=True)
        if not result.status.could_not_run
    }
    info = run.run.model_copy(
        update={"interrupted": False, "finished": None, "resumed": [*run.run.resumed, datetime.now(UTC)]}
    )
    return Start(cells, info, kept)


def _same_build(name: str, source: str, version: str) -> builds.Build:
    """The build of a record, as it is now. Raises UsageError where it is another one."""
    now = builds.resolve(version if source == builds.INDEX else source)
    if now.name != name:
        raise UsageError(f"the build {source} changed since: it was {name} and is {now.name}")
    return now


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def merge(parts: Sequence[tuple[Path, RunResult]], folder: Path) -> RunResult:
    """One run of the shards of a plan, in `folder`, with their evidence; each part is a folder and its record.

    A cell that is in none of them is `not-run`. Raises UsageError for parts that overlap or differ in plan.
    """
    first = parts[0][1].run
    for number, (path, part) in enumerate(parts):
        for _, before in parts[: max(number, 1)]:
            _check_part(path, part.run, before.run)
    cells: dict[str, tuple[Path, CellResult]] = {}
    for path, part in parts:
        for cell in part.cells:
            name = f"{cell.guest}/{cell.variant}/{cell.build}"
            if name in cells:
                raise UsageError(f"{cells[name][0]} and {path} overlap: both have {name}")
            cells[name] = (path, cell)
    assert first.shard is not None
    make_folder(folder)
    merged = [
        _take(folder, *cells[name]) if name in cells else _missing(name, parts, first)
        for name in first.shard.plan
    ]
    infos = [part.run for _, part in parts]
    hosts = [info.host for info in infos]
    info = first.model_copy(
        update={
            "id": folder.name,
            "started": min(each.started for each in infos),
            "finished": max((each.finished or each.started) for each in infos),
            "interrupted": any(each.interrupted for each in infos),
            "shard": None,
            "host": hosts[0] if all(host == hosts[0] for host in hosts) else None,
            "definitions": {key: value for each in infos for key, value in each.definitions.items()},
            "builds": _builds(infos),
            "lanes": [lane for each in infos for lane in each.lanes],
            "parts": infos,
        }
    )
    run = RunResult(schema=1, run=info, cells=merged)
    run.write(folder)
    return run


def _check_part(path: Path, info: RunInfo, first: RunInfo) -> None:
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
    common = info.definitions.keys() & first.definitions.keys()
    wrong += [f"another {name}" for name in sorted(common) if info.definitions[name] != first.definitions[name]]
    for build in info.builds:
        other = next((each for each in first.builds if each.name == build.name), None)
        if other and any(build.files[f] != other.files[f] for f in build.files.keys() & other.files.keys()):
            wrong.append(f"another build {build.name}")
    if wrong:
        raise UsageError(f"{path} is not a part of the same plan as run {first.id}: {', '.join(wrong)}")


def _take(folder: Path, source: Path, cell: CellResult) -> CellResult:
    for name in cell.evidence:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"{source}: evidence outside of the run's folder: {name}")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(source / name, target)
        except OSError as error:
            raise LabError(f"evidence of {source} cannot be copied: {error.strerror}: {name}") from error
    return cell


def _missing(name: str, parts: Sequence[tuple[Path, RunResult]], first: RunInfo) -> CellResult:
    guest, variant, build = name.split("/", 2)
    wanted = next(
        (b.version if b.source == builds.INDEX else b.source for b in first.builds if b.name == build), build
    )
    example = next((c for _, part in parts for c in part.cells if c.variant == variant), None)
    return CellResult(
        guest=guest,
        variant=variant,
        build=build,
        status=Status.NOT_RUN,
        expected=example.expected if example else Expectation(),
        reason="in none of the merged parts",
        rerun=rerun(guest, variant, wanted, first.options),
    )


def _builds(infos: Sequence[RunInfo]) -> list[BuildRecord]:
    """Each build once, with the digests of the wheels that any part deployed."""
    found: dict[str, BuildRecord] = {}
    for info in infos:
        for build in info.builds:
            known = found.setdefault(build.name, build.model_copy(update={"files": {}}))
            known.files.update(build.files)
    return list(found.values())
