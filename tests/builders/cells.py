"""Cells as a record has them, and runs of such cells to compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lab.gate import results
from lab.gate.compare import CellDifference, compare_builds
from lab.gate.results import BuildResults
from lab.record import (
    CellHistory,
    CellResult,
    CellTrials,
    CellVerdict,
    Confidence,
    Expectation,
    FoundCause,
    LaneRecord,
    Outcome,
    Protection,
    RunResult,
    Status,
    SuiteResult,
    TestResult,
)
from tests.builders.facts import facts
from tests.builders.runs import host, run_of

# What confines a box of the jailer, as the record has it.
JAILED: dict[str, Any] = {
    "program": "libkrun VM",
    "namespaces": ["ipc", "mnt", "pid", "user", "uts"],
    "no_new_privs": True,
    "seccomp": ["filter"],
    "capabilities": dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), "0" * 16),
    "users": ["1001"],
    "groups": ["1001", "993"],
    "root": "/",
    "cgroup": "0::/user.slice/box",
    "limits": {"open files": "1024"},
    "mounts": ["/ rw", "/usr ro", "HOME/boxes/BOX/tmp rw"],
}


def box(**other: Any) -> Protection:
    """What confines a box that is like JAILED, but for `other`."""
    return Protection.model_validate(JAILED | other)


# The part of a cell's result that has a field.
PARTS: dict[str, type[BaseModel]] = {
    "suite": SuiteResult,
    "verdict": CellVerdict,
    "trials": CellTrials,
    "history": CellHistory,
}
PART_OF = {name: part for part, model in PARTS.items() for name in model.model_fields}


def cell(guest: str = "debian-13", variant: str = "stock", **more: Any) -> CellResult:
    """A cell's result; `more` are fields of it and of its parts."""
    verdict = CellVerdict(status=Status.PASS)
    result = CellResult(guest=guest, variant=variant, build="0.10.8", expected=Expectation(), verdict=verdict)
    return changed(result, **more)


def changed(result: CellResult, **more: Any) -> CellResult:
    """A cell's result with other values in fields of it and of its parts."""
    values: dict[str, Any] = dict(result)
    for name, value in more.items():
        if part := PART_OF.get(name):
            values[part] = PARTS[part](**{**dict(values[part]), name: value})
        else:
            values[name] = value
    return CellResult(**values)


def blocked(cause: str = "userns-limit", why: str = "the limit is 0", /, **more: Any) -> CellResult:
    """A cell that failed as expected, for a proved cause."""
    told: dict[str, Any] = {
        "status": Status.XFAIL,
        "expected": Expectation(status="xfail", cause=cause),
        "cause": cause,
        "confidence": Confidence.PROVED,
        "causes": [FoundCause(name=cause, confidence=Confidence.PROVED, reason=why)],
        "reason": why,
    }
    return cell(**(told | more))


def done(
    status: Status,
    cause: str | None = None,
    *,
    tests: Mapping[str, Outcome | None] | None = None,
    guest: str = "debian-13",
    variant: str = "stock",
    build: str = "0.10.8",
    **more: Any,
) -> CellResult:
    """A cell that ran on a debian-13, with the tests that go with its status.

    `tests` are outcomes of other tests, or other outcomes; None: the test is not there at all.
    """
    ran = status.is_decisive or status is Status.FLAKY
    if cause is None and status.failed:
        cause = "userns-limit"
    other = Outcome.FAIL if status.failed else Outcome.PASS
    by_name: dict[str, Outcome | None] = {"control": Outcome.PASS, "starts": other, "isolates": other}
    by_name |= tests or {}
    listed = [
        TestResult(name=name, outcome=outcome, subject="confinement" if name == "isolates" else "start")
        for name, outcome in by_name.items()
        if outcome
    ]
    told: dict[str, Any] = {
        "tests": listed if ran else [],
        "facts": facts() if ran else None,
        "evidence": [f"cells/{guest}/{variant}/{build}/suite.log"] if ran else [],
        "rerun": f"lab matrix -g {guest} -v {variant} --build {build}",
    }
    return cell(guest, variant, status=status, cause=cause, build=build, **(told | more))


def run_with(*cells: CellResult, **more: Any) -> RunResult:
    """A run of these cells, with what it needs to be described: builds, lanes, host, definitions."""
    lanes = [
        LaneRecord(guest=guest, image="a1" * 32, fork="memory", seconds={})
        for guest in dict.fromkeys(cell.guest for cell in cells)
    ]
    told: dict[str, Any] = {
        "lanes": lanes,
        "host": host(),
        "definitions": {"programs": "p" * 64, "variant stock": "s" * 64, "suite jailer": "j" * 64},
    }
    return run_of(*cells, **(told | more))


def side(*cells: CellResult, **more: Any) -> BuildResults:
    """The results of the one build that these cells were run with."""
    run = run_with(*cells, **more)
    return results.reduce_run(run, Path("/runs/one"), results.choose_build(run, None, "--build"))


def compared(old: CellResult, new: CellResult) -> CellDifference:
    [difference] = compare_builds(side(old), side(new)).cells
    return difference


def write(run: RunResult, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run.write(folder)
    return folder
