"""Reading what `remote/run_nextest.py` wrote: nextest's lines of JSON, and how each failed test ended."""

import re
import signal
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from lab.base.files import bounded, plain
from lab.builds.reportlog import LONGEST_MESSAGE, LONGEST_NAME, MOST_TESTS, entry_of
from lab.record import Outcome, TestResult

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


def read(text: str, names: Collection[str] = ()) -> dict[str, TestResult | None] | None:
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
