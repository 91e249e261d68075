"""Which release first failed: a bisection over boxlite's releases, each step a real run of one cell."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import Version

from lab import builds
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.machine.budget import Limits
from lab.plan import Cell
from lab.record import CellResult, ExperimentPolicy, RunOptions, Status
from lab.repro.bisecting import Search, State
from lab.repro.bisection import Bisection, Step
from lab.repro.same_failure import compare, failing
from lab.run import start
from lab.run.observer import Observer

# The suite alone: what cures a cell does not tell which release broke it.
OPTIONS = RunOptions(experiments=ExperimentPolicy.NEVER)
# After so many faults of the lab it is not a single release that cannot be run.
MOST_FAULTS = 3


@dataclass(frozen=True)
class Candidates:
    """The cells of a bisection: one guest in one variant, with each build. Both are in the order of releases.

    `older` ends, and `newer` begins, with the cell of the report.
    """

    older: tuple[Cell, ...]
    newer: tuple[Cell, ...]

    @classmethod
    def of(cls, reported: Cell) -> "Candidates":
        """The report's cell with every other release, too.

        Raises UsageError if there is no other release, LabError if nobody can tell.
        """
        version = Version(reported.build.version)
        others = {
            release: replace(reported, build=builds.resolve(str(release))) for release in builds.releases()
        }
        older = [cell for release, cell in others.items() if release < version]
        newer = [cell for release, cell in others.items() if release > version]
        if not older and not newer:
            raise UsageError(
                f"there is no release of boxlite beside {reported.build.name} to compare it with",
                hint="leave --bisect out",
            )
        return cls((*older, reported), (reported, *newer))

    @property
    def reported(self) -> Cell:
        return self.newer[0]

    @property
    def all(self) -> list[Cell]:
        """Every cell, each once, in the order of releases."""
        return [*self.older, *self.newer[1:]]

    @property
    def ends(self) -> list[Cell]:
        """The cells to begin with: that of the report, and those of the oldest and the newest release."""
        ends = {cell.build.name: cell for cell in (self.reported, self.older[0], self.newer[-1])}
        return list(ends.values())


@dataclass
class Steps:
    """The steps of a bisection so far. `follow` is called with the result of each, from any lane's thread."""

    candidates: Candidates
    results: list[CellResult] = field(default_factory=list)
    stopped: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: int = 0

    def __post_init__(self) -> None:
        self._begun = len(self.candidates.ends)

    def follow(self, result: CellResult) -> Sequence[Cell]:
        """The cell to run after this result; none while others are being run, or at the end."""
        with self._lock:
            self.results.append(result)
            self.stopped = self.stopped or self._why_stop(result)
            if self.stopped or len(self.results) < self._begun:
                return ()
            wanted = self._next()
            self._begun += wanted is not None
            return () if wanted is None else (wanted,)

    def _why_stop(self, result: CellResult) -> str:
        faults = [each for each in self.results if each.status is Status.ERROR and not each.tests]
        if result.status is Status.NOT_RUN or len(faults) >= MOST_FAULTS:
            return result.reason
        return ""

    def _next(self) -> Cell | None:
        wanted = self.failed.next or self.fixed.next
        return next((cell for cell in self.candidates.all if cell.build.name == wanted), None)

    @property
    def failed(self) -> Search[str]:
        """The search for the release that first failed, by the names of builds."""
        return Search([cell.build.name for cell in self.candidates.older], self._states())

    @property
    def fixed(self) -> Search[str]:
        """The search for the release that first passed again. Its candidates begin with the newest release."""
        return Search([cell.build.name for cell in reversed(self.candidates.newer)], self._states())

    def judged(self) -> list[tuple[CellResult, State, str]]:
        """Each result with its state, and why."""
        reported = self._reported()
        return [(each, *compare(reported, each)) for each in self.results] if reported else []

    def _reported(self) -> CellResult | None:
        name = self.candidates.reported.build.name
        return next((each for each in self.results if each.build == name), None)

    def bisection(self, run: str, seconds: float, stopped: str = "") -> Bisection:
        """All that the steps have shown; `stopped` says why no more were run."""
        older, newer = self.candidates.older, self.candidates.newer
        return Bisection(
            guest=self.candidates.reported.guest.name,
            variant=self.candidates.reported.variant.name,
            reported=self.candidates.reported.build.name,
            run=run,
            tests=tuple(failing(reported)) if (reported := self._reported()) else (),
            releases=tuple(cell.build.name for cell in self.candidates.all),
            steps=tuple(Step.of(*judged) for judged in self.judged()),
            failed=self.failed if len(older) > 1 else None,
            fixed=self.fixed if len(newer) > 1 else None,
            stopped=stopped or self.stopped,
            seconds=seconds,
        )

    def _states(self) -> dict[str, State]:
        return {result.build: state for result, state, _ in self.judged()}


def bisect(
    candidates: Candidates,
    paths: Paths,
    folder: Path,
    *,
    uri: str,
    limits: Limits,
    observer: Observer,
    command: str,
) -> Bisection:
    """Find out which release first failed, and which one passed again, with one run in `folder`.

    All steps share one lane as long as it lives: its guest is brought up once, and each build is deployed from
    there. Raises LabError if nothing can be run at all.
    """
    steps = Steps(candidates)
    planned = start.begin(folder, candidates.ends, command=command, options=OPTIONS, shard=None)
    began = datetime.now(UTC)
    run = planned.run(paths, uri, limits, observer, steps.follow)
    seconds = round((datetime.now(UTC) - began).total_seconds(), 1)
    return steps.bisection(run.run.id, seconds, "interrupted" if run.run.interrupted else "")
