"""Reading what pytest-reportlog wrote: a line of JSON for each phase of each test."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from lab.base.files import bounded, plain
from lab.record import Outcome, Protection, TestResult

# Bounds, because the build under test can write what it likes into the report.
MOST_TESTS = 1_000
LONGEST_NAME = 200
LONGEST_MESSAGE = 20_000
# The name under which a test of a suite records what confines its box.
PROTECTION = "protection"


def _clean(text: object) -> object:
    # Python also writes halves of surrogate pairs: what was no UTF-8 in the name of a file.
    return plain(text) if isinstance(text, str) else text


class _Phase(BaseModel):
    """What is read of a test's set-up, call or tear-down."""

    nodeid: Annotated[str, BeforeValidator(_clean)]
    when: Literal["setup", "call", "teardown"]
    outcome: Literal["passed", "failed", "skipped"]
    duration: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    longrepr: Any = None
    user_properties: list[tuple[str, Any]] = Field(default=[], max_length=100)

    @property
    def protection(self) -> Protection | None:
        """What the test recorded of its box; None if it recorded nothing."""
        return next(
            (Protection.model_validate(seen) for what, seen in self.user_properties if what == PROTECTION), None
        )

    @property
    def name(self) -> str:
        """The test's name in the suite."""
        return self.nodeid.rpartition("::")[2]

    @property
    def message(self) -> str:
        """The exception's own words, without the traceback, which is in junit.xml."""
        match self.longrepr:
            case {"reprcrash": {"message": said}}:
                pass
            case [*_, said]:  # A skip: file, line, reason.
                pass
            case said:
                pass
        return bounded(plain(str(said or "")), LONGEST_MESSAGE)


def read(text: str) -> dict[str, TestResult | None] | None:
    """The result of each test that began, by its name; None for a test that has no end.

    None instead of all results if pytest did not collect the tests. Raises ValueError if a line is not what
    pytest-reportlog writes.
    """
    phases: dict[str, dict[str, _Phase]] = {}
    collected = False
    for line in text.splitlines():
        entry = entry_of(line)
        match entry.get("$report_type"):
            case "CollectReport":
                # Folders have such a line, too, which comes before their modules are imported.
                collected |= entry.get("outcome") == "passed" and str(entry.get("nodeid")).endswith(".py")
            case "TestReport":
                phase = _Phase.model_validate(entry)
                phases.setdefault(phase.name, {})[phase.when] = phase
        if len(phases) > MOST_TESTS:
            raise ValueError(f"it has more than {MOST_TESTS} tests")
    # Where tests are chosen by name, pytest reports no collection of their module.
    if not collected and not phases:
        return None
    return {name: _result(name, seen) if "teardown" in seen else None for name, seen in phases.items()}


def entry_of(line: str) -> dict[str, Any]:
    """The JSON object in a line of a report. Raises ValueError if the line is none."""
    try:
        entry = json.loads(line)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(entry, dict):
        raise ValueError(f"a line is no JSON object: {bounded(plain(line), 100)}")
    return entry


def _result(name: str, phases: dict[str, _Phase]) -> TestResult:
    seconds = round(sum(phase.duration for phase in phases.values()), 2)
    name = bounded(name, LONGEST_NAME)
    for when, outcome in (
        ("setup", Outcome.ERROR),
        ("call", Outcome.FAIL),
        ("teardown", Outcome.ERROR),
    ):
        phase = phases.get(when)
        if phase and phase.outcome == "skipped":
            return TestResult(name=name, outcome=Outcome.SKIP, seconds=seconds, message=phase.message)
        if phase and phase.outcome != "passed":
            return TestResult(name=name, outcome=outcome, seconds=seconds, message=phase.message)
    if "call" not in phases:
        return TestResult(name=name, outcome=Outcome.ERROR, seconds=seconds, message="was not called")
    seen = phases["call"].protection
    return TestResult(name=name, outcome=Outcome.PASS, seconds=seconds, protection=seen)
