"""What each cell did with one build: the common model of a run and of a baseline."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab import builds
from lab.base.errors import UsageError, make_unknown_name_error
from lab.base.files import join_lines
from lab.record import BuildRecord, CellResult, Entry, Outcome, RunResult, Status
from lab.verdict.protection import describe_protection

# The parts of a cell's environment, in the order in which files and reports have them. A part that is missing
# was never read: nothing is said about it.
PARTS: Final = (
    *("image", "kernel", "bubblewrap", "apparmor", "profiles", "selinux"),
    *("host", "qemu", "acceleration", "network"),
    *("load", "order"),
)
# What parts are that are kept only where they are something else.
USUAL: Final = {"load": "none", "order": "as listed"}
# The guest was asked and has no such thing.
NONE: Final = "none"
# Long enough to tell digests apart, short enough to read.
DIGEST_LENGTH: Final = 12
# Definitions that touch every cell.
COMMON: Final = ("programs", "seed", "rootfs", "rule set", "deployment")


class EnvironmentChange(Entry):
    """One part of a cell's environment that is not what it was."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        """Say what changed. The values of a digest tell nobody anything."""
        if self.what in PARTS and self.what not in ("image", "profiles"):
            return f"{self.what} {self.old} -> {self.new}"
        names = {
            "profiles": "AppArmor profiles",
            "programs": "the lab's programs in the guest",
            "rule set": "the lab's rules for causes and statuses",
            "deployment": "how the lab deploys builds",
        }
        definition = "definition of " if self.what.startswith(("guest ", "variant ")) else ""
        return f"{definition}{names.get(self.what, self.what)} changed"


def environment_of(cell: CellResult, run: RunResult) -> dict[str, str]:
    """Return what a cell of a run ran on; empty if the lab never read it."""
    facts = cell.facts
    if facts is None:
        return {}
    bubblewrap, apparmor, selinux = facts.bubblewrap, facts.apparmor, facts.selinux
    parts = dict.fromkeys(("bubblewrap", "apparmor", "profiles", "selinux"), NONE)
    parts |= {"kernel": facts.kernel, "load": ", ".join(cell.suite.stress)}
    if bubblewrap is not None:
        parts["bubblewrap"] = (bubblewrap.version or "does not run") + (" setuid" if bubblewrap.setuid else "")
    if apparmor is not None:
        parts["apparmor"] = apparmor.version or "without parser"
        parts["profiles"] = compute_short_digest(apparmor.profiles)
    if selinux is not None:
        policy = (selinux.mode, selinux.policy, selinux.policy_version)
        parts["selinux"] = " ".join(str(part) for part in policy if part is not None)
    if cell.suite.seed is not None:
        parts["order"] = "shuffled"
    # A host's name tells nothing, so it is no part of it.
    hosts, lanes = run.run.hosts(cell.guest, cell.history.lane), run.run.lanes_of(cell.guest, cell.history.lane)
    of_lanes = {
        "image": {lane.image[:DIGEST_LENGTH] for lane in lanes},
        "host": {f"{host.system} with kernel {host.kernel}" for host in hosts},
        "qemu": {host.qemu for host in hosts},
        "acceleration": {host.acceleration for host in hosts},
        "network": {lane.network for lane in lanes if lane.network},
    }
    parts |= {part: ", ".join(sorted(values)) for part, values in of_lanes.items()}
    return {part: join_lines(parts[part]) for part in PARTS if parts.get(part)}


def definitions(run: RunResult, build: BuildRecord) -> dict[str, str]:
    """Return the digests of the definitions that decided what cells of a run did with one build, shortened."""
    names = {name for cell in run.cells for name in (f"guest {cell.guest}", f"variant {cell.variant}")}
    suites = [name for name in run.run.definitions if name.startswith("suite ")]
    names.update([f"suite {build.suite}"] if build.suite else suites)
    digests = {
        name: digest[:DIGEST_LENGTH]
        for name, digest in run.run.definitions.items()
        if name in names or name in COMMON
    }
    return {"rootfs": "the lab's own"} | digests if digests else {}


def compare_environments(old: Mapping[str, str], new: Mapping[str, str]) -> list[EnvironmentChange]:
    """Compare what is known on both sides."""
    old, new = ({**USUAL, **side} if side else {} for side in (old, new))
    return [
        EnvironmentChange(what=part, old=value, new=new[part])
        for part, value in old.items()
        if part in new and new[part] != value
    ]


def compute_short_digest(value: object) -> str:
    """A name for what JSON can hold: it changes only with that."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


# What identifies a cell across builds: guest and variant.
Identity = tuple[str, str]

WITHOUT_TESTS = (Status.NOT_APPLICABLE, Status.ERROR, Status.NOT_RUN, Status.FLAKY)


@dataclass(frozen=True)
class CellSummary:
    """What one cell did. Tests and cause of a flaky cell change from run to run, so they are left out.

    `protection` has the words that the box of each test is compared by, as far as they are known. `reason`,
    `evidence` (a folder) and `rerun` are known for cells of a run only. `kept` names the earlier run that the
    result is from, if it was taken over.
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
    kept: str = ""

    @property
    def identity(self) -> Identity:
        return self.guest, self.variant

    @property
    def failed(self) -> list[str]:
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

    def definitions_of(self, cell: CellSummary) -> dict[str, str]:
        names = (f"guest {cell.guest}", f"variant {cell.variant}", *COMMON)
        definitions = self.definitions.items()
        return {name: digest for name, digest in definitions if name in names or name.startswith("suite ")}


def reduce_run(run: RunResult, folder: Path, build: str) -> BuildResults:
    """Reduce a run to what its cells did with one build, which must be one of the run's."""
    record = next(record for record in run.run.builds if record.name == build)
    cells = [_summary(cell, run, folder) for cell in run.cells if cell.build == build]
    plan = [name.split("/") for name in run.run.shard.plan] if run.run.shard else []
    planned = {(guest, variant) for guest, variant, planned_build in plan if planned_build == build}
    return BuildResults(
        source=f"run {join_lines(run.run.id)}",
        build=join_lines(record.name),
        version=join_lines(record.version),
        argument=builds.format_argument(record),
        cells={cell.identity: cell for cell in cells},
        definitions=definitions(run, record),
        elsewhere=frozenset(planned - {cell.identity for cell in cells}),
        folder=folder,
    )


def choose_build(run: RunResult, build: str | None, option: str) -> str:
    """Return the name of one of a run's builds, named by `option`; it may be left out if there is only one.

    Raises UsageError for an unknown build, and if it must be named.
    """
    tested = _tested(run)
    names = [record.name for record in tested]
    if build in names or (build is None and len(names) == 1):
        return build or names[0]
    if build is None:
        raise UsageError(
            f"run {run.run.id} tested several builds: {', '.join(names)}",
            hint=f"choose one with {option} BUILD",
        )
    same = [record.name for record in tested if build in (record.version, builds.format_argument(record))]
    if len(same) != 1:
        raise make_unknown_name_error(f"build of run {run.run.id}", build, names)
    return same[0]


def choose_pair(run: RunResult, old: str | None, new: str | None, options: tuple[str, str]) -> tuple[str, str]:
    """Return the names of the old and the new build of a run that tested two.

    Of exactly two builds, the first is the old one; if only one of them is named, the other is the other side.
    Raises UsageError if it is not clear which builds are meant.
    """
    names = [record.name for record in _tested(run)]
    if len(names) == 1:
        raise UsageError(
            f"run {run.run.id} tested one build, {names[0]}: there is no other to compare it with",
            hint="name a second run, or run both builds: lab matrix --build OLD --build NEW",
        )

    def other(name: str) -> str:
        return names[1 - names.index(name)]

    if len(names) == 2 and old is None:
        second = choose_build(run, new or names[1], options[1])
        first = other(second)
    else:
        first = choose_build(run, old, options[0])
        second = other(first) if len(names) == 2 and new is None else choose_build(run, new, options[1])
    if first == second:
        raise UsageError(f"{' and '.join(options)} both name {first}", hint=f"builds: {', '.join(names)}")
    return first, second


def _tested(run: RunResult) -> list[BuildRecord]:
    """The builds that a run tested, in the order of its command line: a shard may have no cell of one."""
    tested = {cell.build for cell in run.cells}
    return [record for record in run.run.builds if record.name in tested]


def _summary(cell: CellResult, run: RunResult, folder: Path) -> CellSummary:
    tests = [] if cell.status in WITHOUT_TESTS else cell.tests
    cause = None if cell.status in WITHOUT_TESTS else cell.cause
    return CellSummary(
        guest=join_lines(cell.guest),
        variant=join_lines(cell.variant),
        status=cell.status,
        cause=None if cause is None else join_lines(cause),
        tests={join_lines(test.name): test.outcome for test in tests},
        protection={
            join_lines(test.name): sorted(join_lines(word) for word in describe_protection(test.protection))
            for test in tests
            if test.protection
        },
        environment=environment_of(cell, run),
        reason=join_lines(cell.reason),
        evidence=folder / cell.folder if cell.evidence else None,
        rerun=join_lines(cell.rerun),
        kept=join_lines(str(cell.history.kept or "")),
    )
