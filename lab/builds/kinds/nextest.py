"""An archive that `cargo nextest archive` made: upstream's own tests, which nextest runs in the guest."""

import json
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import bounded
from lab.base.paths import Paths
from lab.builds import elf, sandbox, upstream_tests
from lab.builds._base import FILES, Build, Step, SuiteOptions
from lab.builds.upstream_tests import PROGRAM, Unpacked, Words, check_place
from lab.catalog import Suite
from lab.probes import Facts
from lab.record import Needs, TestResult

RUNNER = Path(upstream_tests.__file__).parent / "remote" / "run_nextest.py"
# What `fetch` calls the file that has the tests, and what is in it once it is unpacked.
TESTS, WORKSPACE = "tests", "workspace"
# Where upstream's tests keep what they warm up, below the workspace: the path is compiled into them.
CACHE = "target/boxlite-test"
# What boxlite looks for its runtime by.
RUNTIME_VARIABLE = "BOXLITE_RUNTIME_DIR"
# The first box of upstream's tests fetches images and makes the disks of all others.
WARM_UP_SECONDS = 120.0
# How much of the names of tests an error or a remark shows.
MOST_NAMES = 1_000


@dataclass(frozen=True)
class Nextest(Build):
    """Tests that nextest runs in the workspace at `place` in the guest, as the suite's user.

    `file` is the archive. It is unpacked to where the workspace was when it was built, or to `words.at`.
    """

    form = "nextest:FILE[,suite=NAME][,runtime=DIR][,cache=DIR][,at=DIR]"
    completed = frozenset({0, 100})
    # Python failed; no tests run, a wrong filter, an experimental feature, set-up, no list of tests, no output.
    runner_failed = frozenset({1, 2, 4, 94, 95, 96, 97, 102, 104, 105, 110})
    heeds_remedies = False
    # By priorities; see remote/run_nextest.py.
    keeps_order = True
    # The prefix, and nextest's expression for the tests if no word has one; empty for that of the suite.
    kind: ClassVar[str] = "nextest"
    usual_filter: ClassVar[str] = ""

    words: Words
    file: Path = field(hash=False)
    place: str
    # nextest's expression for all tests, and for each test of the suite the one that chooses it alone.
    filter: str
    expressions: Mapping[str, str] = field(hash=False)
    # What the tests need of a guest.
    needs: Sequence[elf.Needs] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        words = Words.parse(cls.kind, text)
        return cls(**cls.read(words, words.file))

    @classmethod
    def read(cls, words: Words, file: Path) -> dict[str, Any]:
        """What words and the file with the tests say of a build: arguments of this class. Raises UsageError."""
        chosen = words.filter or cls.usual_filter or words.suite.filter
        program = words.program(Paths.default())
        with sandbox.folder() as folder:
            unpacked = cls.unpack(file, folder)
            choice = [f"-E={chosen}", f"--run-ignored={words.ignored}"]
            listing = upstream_tests.list_tests(program, unpacked, choice)
            needs = [need for binary in listing.tests for need in elf.read(unpacked.binaries[binary])]
        names = listing.names()
        built_in = str(unpacked.built_in)
        place = words.at or check_place(built_in, f"{words.file.name}, built in {built_in}")
        digest = words.digest({TESTS: file, **_folders(words)}, place)
        return {
            "name": f"{words.series}-{listing.version}@{digest}",
            "version": listing.version,
            "suite": _suite_of(words, names),
            "words": words,
            "file": file,
            "place": place,
            "filter": chosen,
            "expressions": names,
            "needs": tuple(needs),
        }

    @classmethod
    def unpack(cls, file: Path, folder: Path) -> Unpacked:
        """Put the workspace with the tests in a file into an empty folder. Raises UsageError."""
        return upstream_tests.unpack(file, folder)

    @property
    def argument(self) -> str:
        return self.words.argument

    @property
    def remarks(self) -> Sequence[str]:
        classified = self.words.suite.tests
        new = [name for name in self.suite.tests if name not in classified]
        missing = [name for name in classified if name not in self.suite.tests]
        remarks = {"not classified, so taken to need a box": new, "not among the tests": missing}
        return [f"{why}: {bounded(', '.join(names), MOST_NAMES)}" for why, names in remarks.items() if names]

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        for need in self.needs:
            if reason := need.unmet(facts):
                raise NotApplicable(reason)
        return {
            TESTS: self.file,
            **_folders(self.words),
            PROGRAM: self.words.program(paths),
            RUNNER.name: RUNNER,
        }

    def laid_out(self, files: Mapping[str, Path], folder: Path, python: str) -> dict[str, Path]:
        """The workspace with the tests; the rest as it is."""
        self.unpack(files[TESTS], folder)
        rest = {name: file for name, file in files.items() if name != TESTS}
        return {f"{FILES}/{WORKSPACE}": folder, **super().laid_out(rest, folder, python)}

    def steps(self) -> Sequence[Step]:
        place = shlex.quote(self.place)
        steps = [
            Step(f"chmod a+x {FILES}/{PROGRAM} && sudo -n install -d -o tester {place}", seconds=10),
            Step(f"cp -r {FILES}/{WORKSPACE}/. {place}", seconds=60, as_suite_user=True),
            Step(f"rm -r {FILES}/{WORKSPACE}", seconds=10),
        ]
        if self.words.cache is None and self.suite.boxes:
            # Upstream's tests start a box with the jailer on to fill their cache. A variant that blocks the
            # jailer would make the control fail, too, so that is done here, before any variant.
            only = SuiteOptions(tests=[self.suite.control or self.suite.telling[0]])
            results = f"{self.place}/target/lab-warm-up"
            command = self.command(only, results=results, test_seconds=WARM_UP_SECONDS)
            variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
            # nextest ends the test before.
            seconds = WARM_UP_SECONDS + 30
            whole = " ".join([f"cd {place} &&", *variables, command])
            steps.append(Step(whole, seconds, as_suite_user=True, check=False))
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
        order = json.dumps([self.expressions[name] for name in options.tests])
        return shlex.join(
            [
                *("python3", f"{FILES}/{RUNNER.name}", results, f"{test_seconds:.0f}", order),
                *(f"{FILES}/{PROGRAM}", "nextest", "run", *upstream_tests.arguments(self.place)),
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
        return upstream_tests.read_results(text, self.suite.tests)


def _folders(words: Words) -> dict[str, Path]:
    """The files of the folders that are deployed beside the tests, by their paths below `FILES`."""
    places = {"runtime": words.runtime, f"{WORKSPACE}/{CACHE}": words.cache}
    return {
        f"{place}/{file.relative_to(folder)}": file
        for place, folder in places.items()
        if folder
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _suite_of(words: Words, names: Collection[str]) -> Suite:
    """The suite of the words with exactly these tests. One that it does not classify counts as needing a box.

    Raises UsageError if its control or its witness is not among them.
    """
    suite = words.suite
    told = [name for name in (suite.control, suite.witness) if name]
    if missing := [name for name in told if name not in names]:
        raise UsageError(
            f"{words.file}: expected tests of the suite {suite.name} with {' and '.join(missing)}; "
            f"found {bounded(', '.join(names), MOST_NAMES)}",
            hint="without them nobody can tell why a host fails; filter=EXPR chooses other tests, suite=NAME "
            "another suite of `lab list suites`",
        )
    order = [*(name for name in suite.tests if name in names), *(n for n in names if n not in suite.tests)]
    return suite.model_copy(update={"tests": {name: suite.tests.get(name, Needs.BOX) for name in order}})
