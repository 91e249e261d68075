"""What each cell did with one build: the common model of a run and of a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import builds
from lab.base.errors import UsageError, unknown_name
from lab.base.files import plain
from lab.gate import environment
from lab.record import BuildRecord, CellResult, Outcome, RunResult, Status
from lab.verdict.protection import words

# What identifies a cell across builds: guest and variant.
Identity = tuple[str, str]

WITHOUT_TESTS = (Status.NOT_APPLICABLE, Status.ERROR, Status.NOT_RUN, Status.FLAKY)


@dataclass(frozen=True)
class CellSummary:
    """What one cell did. Tests and cause of a flaky cell change from run to run, so they are left out.

    `protection` has the words that the box of each test is compared by, as far as they are known. `reason`,
    `evidence` (a folder) and `rerun` are known for cells of a run only.
    """

    guest: str
    variant: str
    status: Status
    cause: str | None = None
    tests: Mapping[str, Outcome] = field(default_factory=dict)
    protection: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    evidence: Path | None = None
    rerun: str = ""

    @property
    def identity(self) -> Identity:
        return self.guest, self.variant

    @property
    def failed(self) -> list[str]:
        """The tests that did not pass."""
        return [name for name, outcome in self.tests.items() if outcome is not Outcome.PASS]


@dataclass(frozen=True)
class BuildResults:
    """The results of one build. `source` says where they are from: `run NAME` or `baseline FILE`.

    `argument` is what --build takes to name the build again; None if only its name is known, as that of a local
    wheel is in a baseline. `elsewhere` are the cells that other shards of the same plan have. `folder` is
    that of a run.
    """

    source: str
    build: str
    version: str
    argument: str | None
    cells: Mapping[Identity, CellSummary]
    definitions: Mapping[str, str] = field(default_factory=dict)
    elsewhere: frozenset[Identity] = frozenset()
    folder: Path | None = None


def of_run(run: RunResult, folder: Path, build: str) -> BuildResults:
    """Reduce a run to what its cells did with one build, which must be one of the run's."""
    # A shard may have no cell of one of the plan's builds.
    described = {record.name: record for record in run.run.builds} | _records(run)
    record = described[build]
    cells = [_summary(cell, run, folder) for cell in run.cells if cell.build == build]
    return BuildResults(
        source=f"run {_word(run.run.id)}",
        build=_word(record.name),
        version=_word(record.version),
        argument=builds.argument(record),
        cells={cell.identity: cell for cell in cells},
        definitions=environment.definitions(run),
        elsewhere=_elsewhere(run, build),
        folder=folder,
    )


def build_names(run: RunResult) -> list[str]:
    """Return the names of the builds that a run tested, in the order of its command line."""
    return list(_records(run))


def choose_build(run: RunResult, wanted: str | None, option: str) -> str:
    """Return the name of one of a run's builds, named by `option`; it may be left out if there is only one.

    Raises UsageError for a run without results, for an unknown build, and if it must be named.
    """
    known = _records(run)
    if not known:
        raise UsageError(f"run {run.run.id} has no cells", hint="name a run that tested something")
    if wanted is None:
        if len(known) > 1:
            raise UsageError(
                f"run {run.run.id} tested several builds: {', '.join(known)}",
                hint=f"choose one with {option} BUILD",
            )
        return next(iter(known))
    if wanted in known:
        return wanted
    same = [name for name, record in known.items() if wanted in (record.version, builds.argument(record))]
    if len(same) != 1:
        raise unknown_name(f"build of run {run.run.id}", wanted, known)
    return same[0]


def choose_pair(run: RunResult, old: str | None, new: str | None, options: tuple[str, str]) -> tuple[str, str]:
    """Return the names of the old and the new build of a run that tested two.

    Of exactly two builds, the first is the old one; if only one of them is named, the other is the other side.
    Raises UsageError if it is not clear which builds are meant.
    """
    known = build_names(run)
    if len(known) == 2 and (old is None or new is None):
        if old is not None:
            old = choose_build(run, old, options[0])
            new = next(name for name in known if name != old)
        elif new is not None:
            new = choose_build(run, new, options[1])
            old = next(name for name in known if name != new)
        else:
            old, new = known
    if len(known) == 1:
        raise UsageError(
            f"run {run.run.id} tested one build, {known[0]}: there is no other to compare it with",
            hint="name a second run, or run both builds: lab matrix --build OLD --build NEW",
        )
    pair = choose_build(run, old, options[0]), choose_build(run, new, options[1])
    if pair[0] == pair[1]:
        raise UsageError(f"{' and '.join(options)} both name {pair[0]}", hint=f"builds: {', '.join(known)}")
    return pair


def _records(run: RunResult) -> dict[str, BuildRecord]:
    """Return the builds that have cells, by name. An old or damaged record may not describe all of them."""
    tested = dict.fromkeys(cell.build for cell in run.cells)
    described = {record.name: record for record in run.run.builds if record.name in tested}
    return described | {
        name: BuildRecord(name=name, version=name, source=name) for name in tested if name not in described
    }


def _summary(cell: CellResult, run: RunResult, folder: Path) -> CellSummary:
    without = cell.status in WITHOUT_TESTS
    return CellSummary(
        guest=_word(cell.guest),
        variant=_word(cell.variant),
        status=cell.status,
        cause=None if without or cell.cause is None else _word(cell.cause),
        tests={} if without else {_word(test.name): test.outcome for test in cell.tests},
        protection={} if without else _protection(cell),
        environment=environment.of_cell(cell, run),
        reason=_word(cell.reason),
        evidence=folder / cell.folder if cell.evidence else None,
        rerun=_word(cell.rerun),
    )


def _protection(cell: CellResult) -> dict[str, list[str]]:
    return {
        _word(test.name): sorted(_word(word) for word in words(test.protection))
        for test in cell.tests
        if test.protection
    }


def _word(text: str) -> str:
    """Join text into one line that controls no terminal: a record may come from anywhere."""
    return " ".join(plain(text).split())


def _elsewhere(run: RunResult, build: str) -> frozenset[Identity]:
    plan = run.run.shard.plan if run.run.shard else []
    names = [name.split("/", 2) for name in plan if name.count("/") >= 2]
    here = {(cell.guest, cell.variant) for cell in run.cells if cell.build == build}
    return frozenset((guest, variant) for guest, variant, of in names if of == build) - here
