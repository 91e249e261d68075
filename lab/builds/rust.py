"""Builds whose suite is upstream's own: Rust's tests, which nextest runs in the guest."""

import json
import shlex
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import bounded
from lab.base.paths import Paths
from lab.builds import elf, libtest
from lab.builds._base import FILES, Build, Step, SuiteOptions
from lab.builds.arguments import Words
from lab.builds.nextest import arguments
from lab.catalog import Suite
from lab.probes import Facts
from lab.record import Needs, TestResult

RUNNER = Path(__file__).parent / "remote" / "run_nextest.py"
# Where upstream's tests keep what they warm up, below the workspace: the path is compiled into them.
CACHE = "target/boxlite-test"
# What boxlite looks for its runtime by.
RUNTIME_VARIABLE = "BOXLITE_RUNTIME_DIR"
# The first box of upstream's tests fetches images and makes the disks of all others.
WARM_UP_SECONDS = 120.0
# How many of the tests that are not there a remark names.
MOST_MISSING = 10
# How much of the found tests' names an error shows.
MOST_NAMES = 1_000
# The names that an archive and a lone executable have below `FILES`.
ARCHIVE, EXECUTABLE = "archive.tar.zst", "tests"


def below(folder: Path | None, name: str) -> dict[str, Path]:
    """The files of a folder, by their paths below `name` in the guest."""
    if folder is None:
        return {}
    return {f"{name}/{file.relative_to(folder)}": file for file in sorted(folder.rglob("*")) if file.is_file()}


def suite_of(words: Words, names: Collection[str]) -> Suite:
    """The suite of the words with exactly these tests. One that it does not classify counts as needing a box.

    Raises UsageError if its control or its witness is not among them.
    """
    known = words.suite
    told = [name for name in (known.control, known.witness) if name]
    if missing := [name for name in told if name not in names]:
        raise UsageError(
            f"{words.file}: expected tests of the suite {known.name} with {' and '.join(missing)}; "
            f"found {bounded(', '.join(names), MOST_NAMES)}",
            hint="without them nobody can tell why a host fails; filter=EXPR chooses other tests, suite=NAME "
            "another suite of `lab list suites`",
        )
    order = [*(name for name in known.tests if name in names), *(n for n in names if n not in known.tests)]
    return known.model_copy(update={"tests": {name: known.tests.get(name, Needs.BOX) for name in order}})


@dataclass(frozen=True)
class RustTests(Build):
    """Tests that nextest runs in the workspace at `place` in the guest, as the suite's user.

    `files` are local files by their names below `FILES`; `filter` is nextest's expression for all tests.
    """

    completed = frozenset({0, 100})
    # Python failed; no tests run, a wrong filter, an experimental feature, set-up, no list of tests, no output.
    runner_failed = frozenset({1, 2, 4, 94, 95, 96, 97, 102, 104, 105, 110})

    heeds_remedies = False
    # By priorities; see remote/run_nextest.py.
    keeps_order = True
    words: Words
    place: str
    filter: str
    # For each test of the suite the expression that chooses it alone.
    expressions: Mapping[str, str] = field(hash=False)
    files: Mapping[str, Path] = field(hash=False)
    # What the tests in an archive need of a guest. Whoever deploys the files looks at those themselves.
    needs: Sequence[elf.Needs] = ()

    @property
    @abstractmethod
    def unpacking(self) -> str:
        """A shell command of the suite's user, run in the workspace: it puts manifests and `target/` there."""

    @property
    def remarks(self) -> Sequence[str]:
        known = self.words.suite.tests
        new = [name for name in self.suite.tests if name not in known]
        missing = [name for name in known if name not in self.suite.tests]
        found = [f"not classified, so taken to need a box: {', '.join(new)}"] if new else []
        some = ", ".join(missing[:MOST_MISSING])
        more = len(missing) - MOST_MISSING
        found += [f"not among the tests: {some}{f' and {more} more' if more > 0 else ''}"] if missing else []
        return found

    def check(self, paths: Paths) -> None:
        pass  # `parse` has listed the tests.

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        for each in self.needs:
            if reason := each.unmet(facts):
                raise NotApplicable(reason)
        return {
            **self.files,
            **below(self.words.runtime, "runtime"),
            **below(self.words.cache, "cache"),
            "cargo-nextest": self.words.program(paths),
            RUNNER.name: RUNNER,
        }

    def steps(self) -> Sequence[Step]:
        place = shlex.quote(self.place)
        steps = [
            # Whoever packed the files may have kept them to themselves.
            Step(
                f"chmod -R a+rX {FILES} && chmod a+x {FILES}/cargo-nextest && "
                f"sudo -n install -d -o tester {place}",
                seconds=10,
            ),
            Step(
                f"cd {place} && {self.unpacking} && "
                f"if test -d {FILES}/cache; then mkdir -p {place}/{CACHE} && "
                f"cp -r {FILES}/cache/. {place}/{CACHE}/; fi",
                seconds=60,
                as_suite_user=True,
            ),
            Step(f"cd {FILES} && rm -rf cache manifests {EXECUTABLE} {ARCHIVE}", seconds=10),
        ]
        if self.words.cache is None and self.suite.boxes:
            # Upstream's tests start a box with the jailer on to fill their cache. A variant that blocks the
            # jailer would make the control fail, too, so that is done here, before any variant.
            only = SuiteOptions(tests=[self.suite.control or self.suite.telling[0]])
            command = self.command(
                only, results=f"{self.place}/target/lab-warm-up", test_seconds=WARM_UP_SECONDS
            )
            variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
            steps.append(
                Step(
                    " ".join([f"cd {place} &&", *variables, command]),
                    # nextest ends the test before.
                    seconds=WARM_UP_SECONDS + 30,
                    as_suite_user=True,
                    check=False,
                )
            )
        return steps

    @property
    def ingredients(self) -> Sequence[str]:
        return (RUNNER.read_text(),)

    @property
    def working_folder(self) -> str:
        return self.place

    @property
    def environment(self) -> Mapping[str, str]:
        runtime = {RUNTIME_VARIABLE: f"{FILES}/runtime"} if self.words.runtime else {}
        return {**super().environment, **runtime}

    def command(self, options: SuiteOptions, *, results: str, test_seconds: float) -> str:
        return shlex.join(
            [
                "python3",
                f"{FILES}/{RUNNER.name}",
                results,
                f"{test_seconds:.0f}",
                json.dumps([self.expressions[name] for name in options.tests]),
                f"{FILES}/cargo-nextest",
                "nextest",
                "run",
                *arguments(self.place, self.place),
                f"-E={self._expression(options.tests)}",
                f"--run-ignored={self.words.ignored}",
                "--message-format=libtest-json-plus",
                "--fail-fast" if options.to_first_failure else "--no-fail-fast",
            ]
        )

    def _expression(self, tests: Iterable[str]) -> str:
        chosen = " | ".join(self.expressions[name] for name in tests)
        return f"({self.filter}) & ({chosen})" if chosen else self.filter

    def report_file(self, results: str) -> str:
        return f"{results}/report.jsonl"

    def read_report(self, text: str) -> dict[str, TestResult | None] | None:
        return libtest.read(text, self.suite.tests)
