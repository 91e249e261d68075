"""Running the suite in a guest as an ordinary user, and reading what came of each test."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.base.errors import LabError
from lab.catalog import Suite, Variant
from lab.guest import deploy
from lab.guest.session import Session
from lab.guest.variant import as_run, home, login, under
from lab.record import Outcome, TestResult

KILLED = 137  # by SIGKILL, which `timeout` sends when its first signal was not enough
TIMED_OUT = 124


class SuiteBroken(LabError):
    """pytest itself did not run: the lab's own fault, whatever the variant."""


@dataclass(frozen=True)
class Way:
    """How the suite is run: what its tests see beside the usual, and whether it ends at a first failure.

    `tests` are those that are run; all of them where none is named.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    to_first_failure: bool = False
    tests: Sequence[str] = ()


AS_EVER = Way()


@dataclass(frozen=True)
class SuiteRun:
    """What one run of the suite gave: a result for each test; `killed` when its limit ended it."""

    tests: list[TestResult]
    killed: bool


def run(session: Session, suite: Suite, variant: Variant, *, factor: float, way: Way = AS_EVER) -> SuiteRun:
    """Run the suite under its time limit; results come line by line, so that a killed one keeps its own.

    Raises SuiteBroken where pytest could not even collect the tests.
    """
    limit = suite.suite_seconds * factor
    results = folder(variant)
    more = "".join(f"{name}={shlex.quote(value)} " for name, value in way.environment.items())
    stop = "--exitfirst " if way.to_first_failure else ""
    chosen = "".join(f"{suite.name}_suite.py::{name} " for name in way.tests)
    # pytest-reportlog writes each outcome as it comes; JUnit is written only at a regular end. What the variant
    # runs the suite under stands outside of all else: a container takes over neither variables nor signals.
    command = (
        f"mkdir -p {results}; cd {deploy.FOLDER}/suites/{suite.name}; {under(variant)} "
        f"env LAB_ROOTFS={deploy.ROOTFS} PYTHONPATH={deploy.SITE} PYTHONDONTWRITEBYTECODE=1 {more}"
        f"timeout --kill-after=5 {limit:.0f} python3 -m pytest -ra {stop}{chosen}"
        f"--timeout={suite.test_seconds * factor:.0f} --report-log={results}/report.jsonl "
        f"--junitxml={results}/junit.xml >{results}/suite.log 2>&1; "
        f"echo $?; cat {results}/report.jsonl"
    )
    output = session.run(
        as_run(variant, command),
        seconds=suite.suite_seconds + 30 / factor + 10,
        user=login(variant),
    )
    status, _, log = output.stdout.partition("\n")
    entries = [json.loads(line) for line in log.splitlines() if line.strip().endswith("}")]
    killed = int(status) in (TIMED_OUT, KILLED)
    if not killed and not any(entry.get("when") for entry in entries):
        printed = session.run(f"sudo -n tail -n 30 {results}/suite.log", seconds=10).stdout
        raise SuiteBroken(f"pytest ran no test in the guest (exit status {status}):\n{printed}")
    ran = suite.only(way.tests) if way.tests else suite
    return SuiteRun(read_report(ran, entries, killed=killed, limit=limit), killed)


def folder(variant: Variant) -> str:
    """Where in the guest the suite's results go."""
    return f"{home(variant)}/results"


def read_report(
    suite: Suite, entries: list[dict[str, Any]], *, killed: bool, limit: float = 0.0
) -> list[TestResult]:
    """One result for each test that the suite names, in its order, from pytest-reportlog's entries.

    A test that began and has no end was running when the suite was killed: it failed. One that never began
    did not run. A test that the suite does not name is an error. None of them is ever taken for a pass.
    """
    phases: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in entries:
        if entry.get("$report_type") == "TestReport":
            name = entry["nodeid"].rpartition("::")[2]
            phases.setdefault(name, {})[entry["when"]] = entry
    results = []
    hung = False
    for name in suite.tests:
        seen = phases.pop(name, {})
        if "teardown" in seen:
            results.append(_result(name, seen))
        elif killed and not hung:
            hung = True
            message = f"was running when the suite was killed at its limit of {limit:.0f} s"
            results.append(TestResult(name=name, outcome=Outcome.FAIL, message=message))
        else:
            results.append(TestResult(name=name, outcome=Outcome.NOT_RUN))
    results += [
        TestResult(name=name, outcome=Outcome.ERROR, message="ran, but suite.toml does not name it")
        for name in phases
    ]
    return results


def _result(name: str, phases: dict[str, dict[str, Any]]) -> TestResult:
    seconds = round(sum(phase["duration"] for phase in phases.values()), 2)
    for when, outcome in (
        ("setup", Outcome.ERROR),
        ("call", Outcome.FAIL),
        ("teardown", Outcome.ERROR),
    ):
        phase = phases.get(when)
        if phase and phase["outcome"] == "skipped":
            return TestResult(name=name, outcome=Outcome.SKIP, seconds=seconds, message=_message(phase))
        if phase and phase["outcome"] != "passed":
            return TestResult(name=name, outcome=outcome, seconds=seconds, message=_message(phase))
    if "call" not in phases:
        return TestResult(name=name, outcome=Outcome.ERROR, seconds=seconds, message="was not called")
    return TestResult(name=name, outcome=Outcome.PASS, seconds=seconds)


def _message(phase: dict[str, Any]) -> str:
    """The exception's own words, without the traceback: that is in junit.xml."""
    detail = phase.get("longrepr")
    if isinstance(detail, dict):
        return str(detail["reprcrash"]["message"])
    if isinstance(detail, list):  # a skip: file, line, reason
        return str(detail[-1])
    return str(detail or "")
