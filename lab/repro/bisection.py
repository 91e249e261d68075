"""What a bisection found, in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.record import CellResult, Status
from lab.report import markdown
from lab.repro.bisecting import Search, State

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
