"""Reading what pytest-reportlog wrote: a line of JSON for each phase of each test."""

import json
from typing import Any

from lab.record import Outcome, TestResult

Phase = dict[str, Any]


def read(text: str) -> dict[str, TestResult | None]:
    """The result of each test that began, by its name; None for a test that has no end."""
    phases: dict[str, dict[str, Phase]] = {}
    for line in text.splitlines():
        if not line.strip().endswith("}"):
            continue  # The last line, if the suite was killed while it was written.
        entry = json.loads(line)
        if entry.get("$report_type") == "TestReport":
            name = entry["nodeid"].rpartition("::")[2]
            phases.setdefault(name, {})[entry["when"]] = entry
    return {name: _result(name, seen) if "teardown" in seen else None for name, seen in phases.items()}


def _result(name: str, phases: dict[str, Phase]) -> TestResult:
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


def _message(phase: Phase) -> str:
    """The exception's own words, without the traceback, which is in junit.xml."""
    detail = phase.get("longrepr")
    if isinstance(detail, dict):
        return str(detail["reprcrash"]["message"])
    if isinstance(detail, list):  # a skip: file, line, reason
        return str(detail[-1])
    return str(detail or "")
