"""Which release first failed: a bisection over boxlite's releases, each step a real run of one cell.

It is found by trying few of them. A cell fails as another one does if the same tests fail, for the same cause.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from packaging.version import Version

from lab import builds
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.machine.budget import Limits
from lab.plan import Cell
from lab.record import UNKNOWN, CellResult, ExperimentPolicy, Outcome, RunOptions, Status, TestResult
from lab.report import markdown
from lab.run import start
from lab.run.observer import Observer
from lab.verdict.status import is_fault


class State(StrEnum):
    """What a candidate is. Skipped: it could not be run, or what it shows is neither good nor bad."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Search[T]:
    """A bisection at one moment: the candidates in order, and the state of those that were tried.

    The last candidate is the one that is reported to be bad. Both ends are tried first: a bisection means
    something only if the last candidate is bad and an early one is good.
    """

    candidates: Sequence[T]
    states: Mapping[T, State] = field(default_factory=dict)

    @property
    def next(self) -> T | None:
        """The candidate to try next; None if nothing more can be learnt."""
        first, last = self.candidates[0], self.candidates[-1]
        if last not in self.states:
            return last
        if not self.is_bad:
            return None
        if first not in self.states:
            return first
        # The one in the middle of those left; beside a candidate that was skipped, its neighbour.
        left = self.untried
        return left[len(left) // 2] if left else None

    @property
    def is_bad(self) -> bool:
        """Whether the last candidate is bad: otherwise there is nothing to look for."""
        return self.states.get(self.candidates[-1]) is State.BAD

    @property
    def first_bad(self) -> T | None:
        """The earliest candidate that was seen to be bad; None if the last one is not."""
        return self.candidates[self._high] if self.is_bad else None

    @property
    def last_good(self) -> T | None:
        """The latest candidate before the first bad one that was seen to be good; None if none was."""
        low = self._low
        return self.candidates[low] if low >= 0 and self._state(low) is State.GOOD else None

    @property
    def untried(self) -> list[T]:
        """The candidates that can still change the answer."""
        return [each for each in self.candidates[self._low + 1 : self._high] if each not in self.states]

    @property
    def between(self) -> list[T]:
        """The skipped candidates of which one may be the first bad one."""
        return [each for each in self.candidates[self._low + 1 : self._high] if each in self.states]

    def _state(self, index: int) -> State | None:
        return self.states.get(self.candidates[index])

    @property
    def _high(self) -> int:
        """The index of the first bad candidate; that of the last candidate if none was seen to be bad."""
        last = len(self.candidates) - 1
        return next((index for index in range(last) if self._state(index) is State.BAD), last)

    @property
    def _low(self) -> int:
        """The index of the last good candidate before the first bad one; -1 if there is none.

        While no candidate is good, the last skipped one stands for it: those that cannot be run at all are
        expected to be the oldest ones.
        """
        below = range(self._high - 1, -1, -1)
        for state in (State.GOOD, State.SKIPPED):
            if (found := next((index for index in below if self._state(index) is state), None)) is not None:
                return found
        return -1


# -- whether a cell fails as another one does

# Statuses of cells whose suite ran to its end, with the same result each time.
RAN = (Status.PASS, Status.XPASS, Status.FAIL, Status.XFAIL)


def failing(cell: CellResult) -> list[str]:
    """The tests of a cell that failed, and not because the lab was at fault."""
    return [test.name for test in _judged(cell) if test.outcome.is_failure]


def compare(reported: CellResult, cell: CellResult) -> tuple[State, str]:
    """The state of a cell by the tests that fail in the reported one, and why.

    Good: all of them pass. Bad: all of them fail, for the same cause. Everything else says neither.
    """
    wanted = failing(reported)
    if not wanted:
        return State.SKIPPED, reported.reason or "the reported build shows no failure to compare with"
    passed = [test.name for test in _judged(cell) if test.outcome is Outcome.PASS and test.name in wanted]
    failed = [name for name in failing(cell) if name in wanted]
    if len(passed) == len(wanted):
        return State.GOOD, _rest(cell, failing(cell))
    if not passed and not failed:
        return State.SKIPPED, cell.reason or str(cell.status)
    if len(failed) < len(wanted):
        return State.SKIPPED, f"{len(failed)} of the {len(wanted)} tests fail: {', '.join(failed) or '-'}"
    if _cause(cell) != _cause(reported):
        return State.SKIPPED, f"the same tests fail for another cause: {_cause(cell)}"
    return State.BAD, cell.reason if cell.status in RAN else _rest(cell, [])


def _judged(cell: CellResult) -> Sequence[TestResult]:
    """The tests that say something about boxlite.

    A cell is `error` if a single test met a fault, for example a registry that cannot be reached. What its
    other tests showed holds all the same.
    """
    if cell.status in RAN:
        return cell.tests
    return (
        [test for test in cell.tests if not is_fault(test, cell.reason)] if cell.status is Status.ERROR else ()
    )


def _cause(cell: CellResult) -> str:
    """The first cause that was found. A cell with status `error` has none of its own."""
    return cell.causes[0].name if cell.causes else cell.cause or UNKNOWN


def _rest(cell: CellResult, others: Sequence[str]) -> str:
    """What is to be said of the tests that are not compared."""
    if cell.status not in RAN:
        return f"other tests cannot be judged: {cell.reason}"
    return f"other tests fail: {', '.join(others)}" if others else ""


# -- what was found, in words

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Step:
    """One release that was run: its state, its cell's status and cause, and why it has this state.

    `command` runs the step again; `folder` has its evidence, relative to the run's folder.
    """

    release: str
    state: State
    status: Status
    cause: str | None
    why: str
    seconds: float
    command: str
    folder: str

    @classmethod
    def of(cls, cell: CellResult, state: State, why: str) -> "Step":
        """The step that gave a cell's result."""
        return cls(
            cell.build,
            state,
            cell.status,
            cell.cause,
            why,
            round(sum(cell.seconds.values()), 1),
            cell.rerun,
            str(cell.folder),
        )


@dataclass(frozen=True)
class Bisection:
    """A bisection that has ended. `steps` are in the order in which they were run.

    `tests` fail with the report's build; the others are not compared. `failed` looks for the release that first
    failed, and is None if no release is older; `fixed` looks for the one that passed again, and is None if none
    is newer. `stopped` says why it ended early.
    """

    guest: str
    variant: str
    reported: str
    run: str
    tests: tuple[str, ...]
    releases: tuple[str, ...]
    steps: tuple[Step, ...]
    failed: Search[str] | None
    fixed: Search[str] | None
    stopped: str
    seconds: float

    @property
    def first_failed(self) -> str | None:
        """The release that first failed; None if that is not known to be one release."""
        return self.failed.first_bad if self.failed and _is_found(self.failed) else None

    @property
    def first_fixed(self) -> str | None:
        """The release that first passed again; None if that is not known to be one release."""
        return self.fixed.last_good if self.fixed and _is_found(self.fixed) else None

    @property
    def not_run(self) -> list[str]:
        """The releases that were not run, because no answer depended on them."""
        ran = {step.release for step in self.steps}
        return [release for release in self.releases if release not in ran]

    @property
    def commands(self) -> list[str]:
        """The commands that run each step again, each once."""
        return list(dict.fromkeys(step.command for step in self.steps))

    @property
    def result(self) -> list[str]:
        """What was found, in sentences."""
        if self.stopped:
            return [f"The bisection did not come to its end: {self.stopped}."]
        own = next((step for step in self.steps if step.release == self.reported), None)
        if own is None or own.state is not State.BAD:
            why = f": {own.why or own.status}" if own else ""
            return [f"boxlite {self.reported}, the build of the report, shows no failure to look for{why}."]
        said = [self._first_failed(self.failed)] if self.failed else []
        return said + ([self._first_fixed(self.fixed)] if self.fixed else [])

    def _first_failed(self, search: Search[str]) -> str:
        bad, good = search.first_bad, search.last_good
        if good is None:
            return f"No release is known to pass before {self.reported}: {bad} {self._is_the_oldest(search)}."
        if search.between:
            return f"The first release that fails is one of {_list([*search.between, bad])}: {good} passes."
        return f"boxlite {bad} is the first release that fails: {good}, the release before it, passes."

    def _first_fixed(self, search: Search[str]) -> str:
        bad, good = search.first_bad, search.last_good
        if good is None:
            return f"No newer release is known to pass: {bad} fails, too."
        if search.between:
            names = _list([*reversed(search.between), good])
            return f"The first release that passes again is one of {names}: {bad} fails."
        return f"boxlite {good} is the first release that passes again: {bad}, the release before it, fails."

    def _is_the_oldest(self, search: Search[str]) -> str:
        older = search.candidates[: search.candidates.index(search.first_bad or self.reported)]
        if not older:
            return "is the oldest release and fails, too"
        skipped = [each for each in older if each in search.states]
        return f"fails, and of the older ones none could be judged (tried: {', '.join(skipped)})"

    def document(self) -> dict[str, Any]:
        """All of it for a JSON document."""
        return {
            "guest": self.guest,
            "variant": self.variant,
            "reported": self.reported,
            "run": self.run,
            "tests": list(self.tests),
            "first_failed": self.first_failed,
            "first_fixed": self.first_fixed,
            "result": self.result,
            "steps": [asdict(step) for step in self.steps],
            "not_run": self.not_run,
            "seconds": self.seconds,
        }

    def render(self) -> str:
        """The steps and the result, as Markdown."""
        return markdown.page("bisection.md", TEMPLATES, it=self)


def _is_found(search: Search[str]) -> bool:
    return search.is_bad and search.last_good is not None and not search.untried and not search.between


def _list(names: Sequence[str | None]) -> str:
    *others, last = [str(name) for name in names]
    return f"{', '.join(others)} or {last}" if others else last


# -- the steps

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
