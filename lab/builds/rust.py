"""Builds whose suite is upstream's own: Rust's tests, which nextest runs in the guest, and what it wrote."""

import json
import re
import shlex
import signal
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import bounded, plain
from lab.base.paths import Paths
from lab.builds import elf
from lab.builds._base import FILES, Build, Step, SuiteOptions
from lab.builds.arguments import Words
from lab.builds.nextest import arguments
from lab.builds.pytest_tests import LONGEST_MESSAGE, LONGEST_NAME, MOST_TESTS, entry_of
from lab.catalog import Suite
from lab.probes import Facts
from lab.record import Needs, Outcome, TestResult

# Where a panic begins, in the words of Rust's runtime, whose newer releases tell the thread's ID; or the end of
# memory, to which those add a backtrace, too.
PANIC = re.compile(
    r"^(?:thread '.*'(?P<id> \(\d+\))? panicked at |memory allocation of \d+ bytes failed$)", re.MULTILINE
)
# What Rust's test harness prints first on a machine with one processor.
HARNESS_BEGINS = re.compile(r"\s*test \S+ (?:- should panic )?\.\.\. ?")
# What comes behind a panic's own words.
BACKTRACE = re.compile(r"^(?:stack backtrace:$|note: run with `RUST_BACKTRACE=)", re.MULTILINE)
SIGNAL = re.compile(r"signal (\d{1,2})\b")
EXIT_STATUS = re.compile(r"exit code (-?\d{1,4})\b")
# What Rust's test harness exits with after a failed test.
HARNESS_FAILED = 101


def _clean(text: object) -> object:
    return plain(text) if isinstance(text, str) else text


class _Limit(BaseModel):
    """The limit of each test in seconds."""

    seconds: Annotated[int, Field(ge=0, le=100_000)]


class _Binary(BaseModel):
    """A test binary, in nextest's words."""

    crate: str
    test_binary: str
    kind: str

    @property
    def id(self) -> str:
        """What the binary is called in JUnit files."""
        match self.kind:
            case "lib":
                return self.crate
            case "test":
                return self.prefix
        return f"{self.crate}::{self.kind}/{self.test_binary}"

    @property
    def prefix(self) -> str:
        """What stands before `$` and a test's name in events."""
        return f"{self.crate}::{self.test_binary}"


class _Suite(BaseModel):
    """An event of a whole binary."""

    nextest: _Binary | None = None


class _Test(BaseModel):
    """One event of a test."""

    name: Annotated[str, BeforeValidator(_clean)]
    event: str
    exec_time: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    stdout: Annotated[str, BeforeValidator(_clean)] = ""
    reason: str = ""


class _Ending(BaseModel):
    """How a failed test ended, in nextest's words."""

    name: Annotated[str, BeforeValidator(_clean)]
    how: Annotated[str, BeforeValidator(_clean)]


def read_results(text: str, names: Collection[str] = ()) -> dict[str, TestResult | None] | None:
    """The result of each test that began; None for one without an end.

    A test is called by its name without that of its binary, unless `names` has it with that of its binary.
    None instead of all results if nextest did not start the tests. Raises ValueError if a line is not what
    the runner writes.
    """
    last: dict[str, _Test] = {}
    endings: dict[str, str] = {}
    prefixes: dict[str, str] = {}
    started, limit = False, 0
    for line in text.splitlines():
        entry = entry_of(line)
        match entry.get("type"):
            case "limit":
                limit = _Limit.model_validate(entry).seconds
            case "suite":
                started = True
                if binary := _Suite.model_validate(entry).nextest:
                    prefixes[binary.id] = binary.prefix
            case "test":
                test = _Test.model_validate(entry)
                last[test.name] = test
            case "ending":
                ending = _Ending.model_validate(entry)
                endings[ending.name] = ending.how
        if max(len(last), len(endings), len(prefixes)) > MOST_TESTS:
            raise ValueError(f"it has more than {MOST_TESTS} tests")
    if not started and not last:
        return None
    # Events and the JUnit file, which tells the endings, call a binary by different names.
    how = {_in_events(name, prefixes): ending for name, ending in endings.items()}
    called = {name: name if name in names else short_name(name) for name in last}
    return {called[name]: _result(test, called[name], how.get(name, ""), limit) for name, test in last.items()}


def _in_events(name: str, prefixes: Mapping[str, str]) -> str:
    binary, dollar, test = name.partition("$")
    return f"{prefixes.get(binary, binary)}{dollar}{test}"


def short_name(name: str) -> str:
    """A test's name without that of its binary: `boxlite::jailer$works` is `works`."""
    return name.partition("$")[2] or name


def _result(test: _Test, called: str, how: str, limit: int) -> TestResult | None:
    name, seconds = bounded(called, LONGEST_NAME), round(test.exec_time, 2)
    match test.event:
        case "started":
            return None
        case "ok":
            return TestResult(name=name, outcome=Outcome.PASS, seconds=seconds)
        case "ignored":
            return TestResult(name=name, outcome=Outcome.SKIP, message="#[ignore], and it was not asked for")
        case "failed":
            message = "\n".join(filter(None, [_words(test.stdout), _ending(test, how, limit)]))
            return TestResult(name=name, outcome=Outcome.FAIL, seconds=seconds, message=message or "failed")
    raise ValueError(f"{name} has an event of no known kind: {bounded(plain(test.event), 40)}")


def _words(output: str) -> str:
    """The words of a test's last panic, or else the end of its output."""
    panics = list(PANIC.finditer(output))
    if not panics:
        begins = HARNESS_BEGINS.match(output)
        return output[begins.end() if begins else 0 :].strip()[-LONGEST_MESSAGE:]
    words = BACKTRACE.split(output[panics[-1].start() :])[0].strip()
    # The ID is another one in each run; without it, cells that fail in the same way have the same words.
    return bounded(words.replace(panics[-1]["id"] or "", "", 1), LONGEST_MESSAGE)


def _ending(test: _Test, how: str, limit: int) -> str:
    """How the test's process ended, if it was not by a failed assertion."""
    if "time limit" in test.reason:
        # The words by which a limit of the lab's is known; see lab/verdict/status.py.
        return f"was killed at its time limit of {limit} s"
    if found := SIGNAL.search(how):
        known = {each.value: each.name for each in signal.Signals}
        return f"was ended by {known.get(int(found[1]), f'signal {found[1]}')}"
    found = EXIT_STATUS.search(how)
    if found and int(found[1]) != HARNESS_FAILED:
        return f"ended with exit status {found[1]}"
    return ""


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
        return read_results(text, self.suite.tests)
