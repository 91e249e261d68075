"""Which release first failed: a bisection over boxlite's releases, each step a real run of one cell.

A cell fails as another one does if the same tests fail, for the same cause.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from packaging.version import InvalidVersion, Version

from lab import builds
from lab.base.errors import UsageError
from lab.plan import Cell
from lab.record import UNKNOWN, CellResult, Outcome, RunInfo, Status

# After so many faults of the lab it is not a single release that cannot be run.
MOST_FAULTS = 3


class ReleaseState(StrEnum):
    """What a release is. Skipped: it could not be run, or what it shows is neither good nor bad."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


# -- the search, which knows neither cells nor guests


@dataclass(frozen=True)
class Border:
    """Where releases turn from good to bad, as far as a search has come.

    `bad` is the first release that is known to be bad, and `good` the last one before it that is known to be
    good; None if there is none. `between` were skipped or not run yet, and one may be the first bad one. `next`
    is the release to run next; None if nothing more can be learned.
    """

    good: str | None = None
    bad: str | None = None
    between: tuple[str, ...] = ()
    next: str | None = None

    @property
    def is_found(self) -> bool:
        """Whether `good` and `bad` are neighbours."""
        return None not in (self.good, self.bad) and self.next is None and not self.between


def search(releases: Sequence[str], states: Mapping[str, ReleaseState]) -> Border:
    """Search the first bad one among releases in order; the last one is reported to be bad.

    Both ends are tried first: a bisection means something only if the last one is bad and an early one good.
    While no release is good, the last skipped one stands for it: releases that cannot be run at all are
    expected to be the oldest ones.
    """
    first, last = releases[0], releases[-1]
    if last not in states:
        return Border(next=last)
    if states[last] is not ReleaseState.BAD:
        return Border()
    high = next(index for index, release in enumerate(releases) if states.get(release) is ReleaseState.BAD)
    good = [index for index in range(high) if states.get(releases[index]) is ReleaseState.GOOD]
    skipped = [index for index in range(high) if states.get(releases[index]) is ReleaseState.SKIPPED]
    low = max(good or skipped, default=-1)
    inside = releases[low + 1 : high]
    # The one in the middle of those left; beside a release that was skipped, its neighbour.
    untested = [release for release in inside if release not in states]
    following = untested[len(untested) // 2] if untested else None
    return Border(
        good=releases[low] if good else None,
        bad=releases[high],
        between=tuple(inside),
        next=following if first in states else first,
    )


# -- what a cell shows


def outcomes(cell: CellResult) -> dict[str, Outcome]:
    """The outcomes of the tests that say something about boxlite.

    A cell is `error` if a single test met a fault, for example a registry that cannot be reached. What its
    other tests showed holds all the same.
    """
    if not (cell.status.is_decisive or cell.status is Status.ERROR):
        return {}
    return {test.name: test.outcome for test in cell.tests if test.name not in cell.verdict.faulty}


def list_failing_tests(cell: CellResult) -> list[str]:
    """The tests of a cell that failed, and not because the lab was at fault."""
    return [name for name, outcome in outcomes(cell).items() if outcome.is_failure]


def compare(reported: CellResult, cell: CellResult) -> tuple[ReleaseState, str]:
    """The state of a cell by the tests that fail in the reported one, and why.

    Good: all of them pass. Bad: all of them fail, for the same cause. Everything else says neither.
    """
    tests = list_failing_tests(reported)
    if not tests:
        return ReleaseState.SKIPPED, reported.reason or "the reported build shows no failure to compare with"
    failures = list_failing_tests(cell)
    passed = [name for name, outcome in outcomes(cell).items() if outcome is Outcome.PASS and name in tests]
    failed = [name for name in failures if name in tests]
    not_judged = "" if cell.status.is_decisive else f"other tests cannot be judged: {cell.reason}"
    if len(passed) == len(tests):
        return ReleaseState.GOOD, not_judged or (f"other tests fail: {', '.join(failures)}" if failures else "")
    if not passed and not failed:
        return ReleaseState.SKIPPED, cell.reason or str(cell.status)
    if len(failed) < len(tests):
        return ReleaseState.SKIPPED, f"{len(failed)} of the {len(tests)} tests fail: {', '.join(failed) or '-'}"
    # A cell with status `error` has no cause of its own.
    cause, other = (one.causes[0].name if one.causes else one.cause or UNKNOWN for one in (reported, cell))
    if cause != other:
        known = f"for another cause: {other}" if other != UNKNOWN else "for no cause that the lab knows"
        return ReleaseState.SKIPPED, f"the same tests fail {known}"
    return ReleaseState.BAD, not_judged or cell.reason


# -- the steps


@dataclass
class Bisection:
    """A bisection as far as it has come: which release first failed, and which one passed again.

    `cells` are one guest in one variant with each build, in the order of releases, and `reported` is that of
    the report. `left_out` are the releases without a wheel for the guest, oldest first. `results` are in the
    order in which they were run, that of the report first. `stopped` says why it ended early. `run` is known
    when it has ended.
    """

    reported: Cell
    cells: Sequence[Cell]
    left_out: Sequence[str] = ()
    results: list[CellResult] = field(default_factory=list)
    stopped: str = ""
    run: RunInfo | None = None

    @classmethod
    def of(cls, reported: Cell, python: str | None = None) -> "Bisection":
        """A bisection from a cell that failed, over the releases with a wheel for its guest.

        `python` is that of the guest; until it is known no release is left out. Raises UsageError if there is
        none to compare its build with, LabError if nobody can tell.
        """
        name, hint = reported.build.name, "leave --bisect out"
        try:
            version = Version(reported.build.version)
        except InvalidVersion:
            raise UsageError(f"the build {name} has no place in the order of releases", hint=hint) from None
        others = [release for release in builds.list_releases() if release != version]
        fitting = builds.list_releases(python, reported.guest.arch) if python else others
        releases = [release for release in others if release in fitting]
        if not releases:
            raise UsageError(f"there is no release of boxlite beside {name} to compare it with", hint=hint)
        suite = reported.build.suite.name
        wheels = [builds.resolve_build(str(release)) for release in releases]
        cells = [
            replace(reported, build=wheel.with_suite(suite) if suite in wheel.more_suites else wheel)
            for wheel in wheels
        ]
        cells.insert(sum(release < version for release in releases), reported)
        return cls(reported, cells, [str(release) for release in others if release not in fitting])

    def follow(self, result: CellResult) -> Sequence[Cell]:
        """Take in a result, and return the cell to run next; none at the end."""
        self.results.append(result)
        faults = [cell for cell in self.results if cell.status is Status.ERROR and not cell.tests]
        if result.status is Status.NOT_RUN or len(faults) >= MOST_FAULTS:
            self.stopped = result.reason
            return ()
        return [self.next] if self.next else ()

    @property
    def next(self) -> Cell | None:
        """The cell to run next; None at the end. Whether a newer release mends it is asked first."""
        if not self.results:
            return self.reported
        release = next((border.next for border in self.borders[::-1] if border and border.next), None)
        return next((cell for cell in self.cells if cell.build.name == release), None)

    @property
    def next_command(self) -> str:
        """The command that runs the cell to run next; empty at the end, or if its variant has no file."""
        if self.next is None or self.run is None or self.next.again:
            return ""
        return self.next.rerun(self.run.options)

    @property
    def releases(self) -> list[str]:
        return [cell.build.name for cell in self.cells]

    @property
    def tests(self) -> list[str]:
        """The tests that fail with the report's build; no others are compared."""
        return list_failing_tests(self.results[0]) if self.results else []

    @property
    def steps(self) -> list[tuple[CellResult, ReleaseState, str]]:
        """What was run, in this order: the cell, the state of its release, and why it has this state."""
        return [(cell, *compare(self.results[0], cell)) for cell in self.results]

    @property
    def states(self) -> dict[str, ReleaseState]:
        """The state of each release that was run."""
        return {cell.build: state for cell, state, _ in self.steps}

    @property
    def not_run(self) -> list[str]:
        """The releases that were not run, because no answer depended on them."""
        return [release for release in self.releases if release not in self.states]

    @property
    def borders(self) -> tuple[Border | None, Border | None]:
        """Where the releases up to the report's begin to fail, and those from the newest one back to it.

        None if no release is older, or newer.
        """
        at = self.releases.index(self.reported.build.name)
        older, newer = self.releases[: at + 1], self.releases[at:][::-1]
        return (
            search(older, self.states) if len(older) > 1 else None,
            search(newer, self.states) if len(newer) > 1 else None,
        )

    @property
    def result(self) -> list[str]:
        """The answer, in sentences; of a bisection that ended early, what is known so far."""
        stopped = "interrupted" if self.run and self.run.interrupted else self.stopped
        following = f" The next release to run is {self.next.build.name}." if self.next else ""
        sentences = [f"The bisection did not come to its end: {stopped}.{following}"] if stopped else []
        if not self.results:
            return sentences
        _, state, reason = self.steps[0]
        if state is not ReleaseState.BAD:
            name = self.reported.build.name
            return [
                *sentences,
                f"boxlite {name}, the build of the report, shows no failure to look for: {reason}.",
            ]
        return [*sentences, *self._say_mended(), *self._say_broken()]

    def _say_mended(self) -> Iterator[str]:
        """Whether the newest release passes, and which one was the first."""
        _, border = self.borders
        newest, state = self.releases[-1], self.states.get(self.releases[-1])
        newest_release = f"the newest release{self._with_wheel(newest, '')}"
        if border is None:
            yield f"No release{self._with_wheel(newest, '')} is newer than {newest}, which fails."
        elif border.good:
            if state is ReleaseState.GOOD:
                yield f"It is mended: {newest}, {newest_release}, passes."
            candidates = [*reversed(border.between), border.good]
            yield self._say_first(candidates, "passes again", border.bad, "fails")
        elif state is ReleaseState.BAD:
            yield f"It is not mended: {newest}, {newest_release}, fails, too."
        elif border.next is None:
            yield f"No newer release is known to pass: {border.bad} fails, too."
        else:
            yield "Whether a newer release passes is not known."

    def _say_broken(self) -> Iterator[str]:
        """Which release failed first."""
        border, _ = self.borders
        if border and border.good:
            yield self._say_first([*border.between, border.bad], "fails", border.good, "passes")
        elif border and border.next:
            yield f"Which release first failed is not known: {border.bad} fails."
        elif border:
            name = self.reported.build.name
            reason = f"is the oldest release{self._with_wheel('', self.releases[0])} and fails, too"
            if older := self.releases[: self.releases.index(border.bad or name)]:
                releases = ", ".join(release for release in older if release in self.states)
                reason = f"fails, and of the older ones none could be judged (tried: {releases})"
            yield f"No release is known to pass before {name}: {border.bad} {reason}."

    def _say_first(self, candidates: Sequence[str | None], does: str, neighbour: str | None, did: str) -> str:
        """The sentence on the first release that does something; it is one of these candidates."""
        *earlier, last = map(str, candidates)
        missing = self._list_left_out(str(neighbour), last)
        without = f" (without a wheel for the guest: {', '.join(missing)})" if missing else ""
        if earlier:
            names = f"{', '.join(earlier)} or {last}"
            return f"The first release that {does} is one of {names}: {neighbour} {did}{without}."
        before = f"the release before it{' with a wheel for the guest' if missing else ''}"
        return f"boxlite {last} is the first release that {does}: {neighbour}, {before}, {did}{without}."

    def _with_wheel(self, after: str, before: str) -> str:
        """What limits a superlative, if releases that were left out lie beyond one."""
        return " with a wheel for the guest" if self._list_left_out(after, before) else ""

    def _list_left_out(self, after: str, before: str) -> list[str]:
        """The releases that were left out between two; an empty name is no limit."""
        versions = {cell.build.name: Version(cell.build.version) for cell in self.cells}
        low, high = versions.get(after), versions.get(before)
        return [
            name
            for name in self.left_out
            if (low is None or Version(name) > low) and (high is None or Version(name) < high)
        ]

    def document(self) -> dict[str, Any]:
        """All of it for a JSON document. The folders of its steps are relative to that of its run."""
        failed, fixed = self.borders
        return {
            "reported": self.reported.build.name,
            "run": self.run.id if self.run else "",
            "tests": self.tests,
            # None if that is not known to be one release.
            "first_failed": failed.bad if failed and failed.is_found else None,
            "first_fixed": fixed.good if fixed and fixed.is_found else None,
            "result": self.result,
            "steps": [
                {
                    "release": cell.build,
                    "state": state,
                    "status": cell.status,
                    "cause": cell.cause,
                    "reason": reason,
                    "seconds": round(sum(cell.suite.seconds.values()), 1),
                    "command": cell.rerun,
                    "folder": str(cell.folder),
                }
                for cell, state, reason in self.steps
            ],
            "not_run": self.not_run,
            "left_out": list(self.left_out),
        }
