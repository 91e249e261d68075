"""Starting a run: a new one from what the user asks for, or an earlier one that is resumed.

A run is resumed only while nothing has changed that decides the results of its cells: see `compute_digests`.
"""

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from lab import __version__, builds
from lab.base import paths
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Catalog, Variant, load_catalog, remedies
from lab.guest import programs
from lab.images import store
from lab.lane import prepare_image
from lab.plan import Cell, PlannedRun, Shard, choose_cells, choose_shard_cells
from lab.record import ExperimentPolicy, RunInfo, RunOptions, RunResult
from lab.record.folders import choose_new_folder
from lab.run.request import Request

# What makes a result of what a guest shows, and what puts a build into a guest and runs its suite there.
RULES = (
    "causes/*.py",
    "catalog/knob*.py",
    "catalog/confinement.py",
    "trials/*.py",
    "lane/cell.py",
    "guest/collect.py",
    "verdict/status.py",
    "verdict/protection.py",
)
DEPLOYMENT = ("builds/**/*.py", "guest/deploy.py", "guest/suite.py", "guest/variant.py")


def plan(
    request: Request, catalog: Catalog, *, only_shown: bool = False
) -> tuple[list[Cell], Shard | None, RunOptions]:
    """The plan of a new run, the shard of it that is run, and the run's options.

    `only_shown`: nobody is asked which release is the newest. Raises UsageError for a request that cannot be
    met, LabError if the newest release cannot be found out.
    """
    shard = Shard.parse(request.shard) if request.shard is not None else None
    choice = choose_cells(
        catalog,
        set_name=request.set_name,
        guests=request.guests,
        variants=request.variants,
        kernels=request.kernels,
    )
    options = request.options(catalog)
    tested = [
        build
        for resolved in builds.resolve_builds(request.builds, only_shown=only_shown)
        for build in builds.choose_suites(resolved, request.suite)
    ]
    return choice.cells(list({build.name: build for build in tested}.values())), shard, options


def preview_run(request: Request, catalog: Catalog) -> tuple[list[Cell], RunOptions]:
    """The cells and the options of a new run, which is not begun."""
    cells, shard, options = plan(request, catalog, only_shown=True)
    return choose_shard_cells(cells, shard, options), options


def plan_run(request: Request, catalog: Catalog, paths: Paths, folder: Path | None, command: str) -> PlannedRun:
    """Plan a new run in `folder`, or in a new one of the lab's own; `command` is the command line to record.

    Raises as `plan`.
    """
    cells, shard, options = plan(request, catalog)
    folder = choose_new_folder(paths.make(paths.runs), folder)
    for build in dict.fromkeys(cell.build for cell in cells) if request.builds else ():
        build.check(paths)
    return begin_run(folder, cells, command=command, options=options, shard=shard)


def begin_run(
    folder: Path, cells: Sequence[Cell], *, command: str, options: RunOptions, shard: Shard | None = None
) -> PlannedRun:
    """Begin the record of a run of these cells, or of a shard of them. Raises UsageError for an empty shard."""
    shard_cells = choose_shard_cells(cells, shard, options)
    info = RunInfo(
        id=folder.name,
        started=datetime.now(UTC),
        command=command,
        lab=__version__,
        options=options,
        definitions=compute_digests(shard_cells, options),
        shard=shard.record(cells, options) if shard else None,
        builds=[build.record() for build in dict.fromkeys(cell.build for cell in cells)],
    )
    return PlannedRun(folder, shard_cells, info)


def resume_run(folder: Path, run: RunResult, catalog: Catalog, build_names: Sequence[str] = ()) -> PlannedRun:
    """Plan the rest of an earlier run, whose folder and record these are.

    `build_names`: see `resolve_recorded_builds`.

    Cells without a result are run, and those that are `error` or `not-run` are run again. All other results are
    kept; what was not tried on their cells, or met a fault of the lab, is tried now.

    A merged run is resumed as one run; definitions that only cells of lost shards have are those of today.
    Raises UsageError if definitions or builds have changed since, and names them; if a build has to be named;
    or if there is a link or a special file in the folder.
    """
    options = run.run.options
    _refuse_special_files(folder)
    again = f"lab matrix --resume {shlex.quote(str(folder))}"
    tested = builds.resolve_recorded_builds(run.run.builds, build_names, again)
    cells = [
        Cell(
            catalog.guest(result.guest, result.kernel), catalog.variant(result.variant), tested[result.build]
        ).under(options)
        for result in run.cells
    ]
    earlier_results = {
        cell.folder: result
        for cell, result in zip(cells, run.cells, strict=True)
        if not result.status.could_not_run
    }
    new_digests = compute_digests(cells, options)
    # What only lost shards have is not in the record, nor is a variant that is new in the catalog. No cell that
    # stands was run with either; experiments say what they tried.
    earlier_digests = run.run.definitions
    if changed := list_differences(
        earlier_digests, {name: new_digests[name] for name in earlier_digests if name in new_digests}
    ):
        raise UsageError(
            f"run {run.run.id} cannot be resumed, changed since: {', '.join(changed)}",
            hint="start a new run, or bring back the definitions it was started with",
        )
    resumed = run.run.with_values(
        finished=None,
        interrupted=False,
        resumed=[*run.run.resumed, datetime.now(UTC)],
        options=options,
        definitions=new_digests,
    )
    return PlannedRun(folder, cells, resumed, earlier_results)


def _refuse_special_files(folder: Path) -> None:
    """Raise UsageError if a run's folder holds anything but files and folders.

    What the run writes would go elsewhere through a link, and would wait for a reader at a pipe.
    """
    for parent, folders, files in folder.walk():
        for path in (parent / name for name in [*folders, *files]):
            with suppress(FileNotFoundError):  # A lab that is at work in the folder has removed it.
                mode = path.lstat().st_mode
                if not (S_ISREG(mode) or S_ISDIR(mode)):
                    kind = "a link" if S_ISLNK(mode) else "a pipe or another special file"
                    raise UsageError(
                        f"the run {folder} cannot be resumed: {path} is {kind}, which the lab does not make",
                        hint="remove it if you know what it is for, or start a new run",
                    )


# -- what decides the results of cells


def compute_digests(cells: Iterable[Cell], options: RunOptions) -> dict[str, str]:
    """SHA-256 of each definition and program that decides what these cells do, by a readable name."""
    by_name: dict[str, str] = {}
    for cell in cells:
        guest, variant = cell.guest, cell.variant
        by_name[f"guest {guest.name}"] = _digest(guest.model_dump_json(), store.compute_inputs_digest(guest))
        by_name[f"variant {variant.name}"] = _variant_digest(variant)
        by_name[f"suite {cell.suite.name}"] = _digest(*cell.suite.texts())
    if options.experiments is not ExperimentPolicy.NEVER:
        # An experiment may try any variant as a change, and takes the cause from it.
        by_name |= {
            f"variant {name}": _variant_digest(variant) for name, variant in load_catalog().variants.items()
        }
    seed = paths.find_definitions() / "cloud-init"
    by_name["programs"] = _digest(
        *prepare_image.RECIPE, programs.read_loader(), *programs.read_sources().values()
    )
    by_name["rule set"] = _digest_of_code(RULES)
    by_name["deployment"] = _digest_of_code(DEPLOYMENT)
    if options.remedies:
        by_name |= {f"remedy {name}": remedy.digest for name, remedy in remedies.load_remedies().items()}
    if options.rootfs:
        # A layout that was deleted counts as changed.
        by_name["rootfs"] = _digest(rootfs.read_index(Path(options.rootfs)))
    files = sorted(file for file in seed.iterdir() if file.is_file())
    by_name["seed"] = _digest(*(file.read_text() for file in files))
    return by_name


def list_differences(earlier: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the names of the definitions that were added, removed or changed."""
    return sorted(name for name in {*earlier, *new} if earlier.get(name) != new.get(name))


def _digest_of_code(patterns: Sequence[str]) -> str:
    """A digest of the lab's own modules that match these patterns."""
    files = [file for pattern in patterns for file in sorted(paths.PACKAGE.glob(pattern))]
    return _digest(*(text for file in files for text in (file.name, file.read_text())))


def _variant_digest(variant: Variant) -> str:
    return _digest(variant.model_dump_json(exclude_none=True))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
