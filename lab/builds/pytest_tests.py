"""Builds whose suite runs under pytest, with the guest's own Python, and what pytest-reportlog wrote there."""

import compileall
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field

from lab.base import archives
from lab.base.files import check_values, clean_text, cut_text
from lab.builds._base import FOLDER, ROOTFS, Build, DeployStep, SuiteOptions
from lab.record import BoxGroups, Outcome, Protection, TestResult

# --- the results of a run -----------------------------------------------------------------------------

# Bounds, because the build under test can write what it likes into the report.
MOST_TESTS = 1_000
LONGEST_NAME = 200
LONGEST_MESSAGE = 20_000
# The names under which a test of a suite records what confines its box, and the control groups of both.
PROTECTION, GROUPS = "protection", "groups"
# How pytest-timeout begins its words about a test that met its limit.
TIMED_OUT = re.compile(r"Failed: Timeout \(?>")

# What a guest wrote: Python also writes halves of surrogate pairs, for what was no UTF-8 in the name of a file.
Plain = Annotated[str, BeforeValidator(lambda text: clean_text(text) if isinstance(text, str) else text)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Phase(BaseModel):
    """What is read of a test's set-up, call or tear-down."""

    nodeid: Plain
    when: Literal["setup", "call", "teardown"]
    outcome: Literal["passed", "failed", "skipped"]
    duration: Seconds
    longrepr: Any = None
    user_properties: list[tuple[str, Any]] = Field(default=[], max_length=100)

    @property
    def message(self) -> str:
        """The exception's own words, without the traceback, which is in junit.xml."""
        match self.longrepr:
            case {"reprcrash": {"message": words}}:
                pass
            case [*_, words]:  # A skip: file, line, reason.
                pass
            case words:
                pass
        return clean_text(cut_text(str(words or ""), LONGEST_MESSAGE))

    def find_property[T: BaseModel](self, name: str, model: type[T]) -> T | None:
        """What the test recorded under a name. Raises ValidationError if it is something else."""
        recorded = (value for key, value in self.user_properties if key == name)
        return next(map(model.model_validate, recorded), None)


def read_reportlog(text: str) -> dict[str, TestResult | None] | None:
    """The result of each test that began, by its name in the suite; None for a test that has no end.

    None instead of all results if pytest did not collect the tests. Raises ValueError if a line is not what
    pytest-reportlog writes.
    """
    phases: dict[str, dict[str, _Phase]] = {}
    collected = False
    for entry in parse_entries(text):
        match entry.get("$report_type"):
            case "CollectReport":
                # Folders have such a line, too, which comes before their modules are imported.
                collected |= entry.get("outcome") == "passed" and str(entry.get("nodeid")).endswith(".py")
            case "TestReport":
                phase = _Phase.model_validate(entry)
                phases.setdefault(phase.nodeid.rpartition("::")[2], {})[phase.when] = phase
        if len(phases) > MOST_TESTS:
            raise ValueError(f"it has more than {MOST_TESTS} tests")
    # Where tests are chosen by name, pytest reports no collection of their module.
    if not collected and not phases:
        return None
    return {name: _result(name, of_test) if "teardown" in of_test else None for name, of_test in phases.items()}


def parse_entries(text: str) -> Iterator[dict[str, Any]]:
    """The JSON object in each line of a report. Raises ValueError if a line is none, or for too many values."""
    check_values(text)
    for line in re.finditer(".+", text):
        try:
            entry = json.loads(line[0])
        except RecursionError:
            raise ValueError("its JSON is nested too deeply") from None
        if not isinstance(entry, dict):
            raise ValueError(f"a line is not a JSON object: {clean_text(cut_text(line[0], 100))}")
        yield entry


def _result(name: str, phases: dict[str, _Phase]) -> TestResult:
    name, seconds = cut_text(name, LONGEST_NAME), round(sum(phase.duration for phase in phases.values()), 2)
    groups = phases["call"].find_property(GROUPS, BoxGroups) if "call" in phases else None
    failures = {"setup": Outcome.ERROR, "call": Outcome.FAIL, "teardown": Outcome.ERROR}
    for when, failure in failures.items():
        phase = phases.get(when)
        if phase and phase.outcome != "passed":
            outcome = Outcome.SKIP if phase.outcome == "skipped" else failure
            late = bool(TIMED_OUT.match(phase.message))
            return TestResult(
                name=name,
                outcome=outcome,
                seconds=seconds,
                message=phase.message,
                out_of_time=late,
                groups=groups,
            )
    if "call" not in phases:
        return TestResult(name=name, outcome=Outcome.ERROR, seconds=seconds, message="was not called")
    protection = phases["call"].find_property(PROTECTION, Protection)
    return TestResult(name=name, outcome=Outcome.PASS, seconds=seconds, protection=protection, groups=groups)


# --- a kind of build ----------------------------------------------------------------------------------

# Where a guest has the unpacked wheels.
SITE = f"{FOLDER}/site"
# What every such suite needs.
RUNNER = ("pytest", "pytest-timeout", "pytest-reportlog")


@dataclass(frozen=True)
class PytestTests(Build):
    """A build that a suite of the lab's own drives: `NAME_suite.py` in the suite's folder."""

    # pytest's ExitCode: interrupted, internal error, wrong usage, no tests collected.
    runner_failed = frozenset({2, 3, 4, 5})
    # A command of the suite's user that uses the build once, so that no test pays for what comes first.
    first_use: ClassVar[str]

    def laid_out(self, files: Mapping[str, Path], folder: Path, python: str) -> dict[str, Path]:
        """The wheels unpacked, and compiled if this host has the guest's Python; the rest as it is."""
        site = folder / "site"
        names = sorted(name for name in files if name.endswith(".whl") and "/" not in name)
        for name in names:
            archives.unpack_archive(files[name], site)
        if python == f"{sys.version_info.major}.{sys.version_info.minor}":
            compileall.compile_dir(site, ddir=SITE, quiet=2)
        other_files = {name: file for name, file in files.items() if name not in names}
        return {SITE: site, **super().laid_out(other_files, folder, python)}

    def steps(self) -> Sequence[DeployStep]:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        # What Python compiles on a first import is compiled here once, and not in every cell.
        compiling = f"LAB_ROOTFS={ROOTFS} PYTHONPATH={SITE} python3 -m pytest --quiet --collect-only"
        # boxlite unpacks its runtime when it is first used, and a first login starts the user's own service
        # manager. If a build cannot even do that, the suite will show it.
        using = f"export {variables} && {self.first_use}"
        return [
            DeployStep(f"cd {self.working_folder} && {compiling}", seconds=30),
            DeployStep(f"cd {self.working_folder} && {using}", seconds=30, as_suite_user=True, check=False),
        ]

    @property
    def ingredients(self) -> Sequence[str]:
        return RUNNER

    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, "PYTHONPATH": SITE, "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, options: SuiteOptions, *, results: str, test_seconds: float) -> str:
        words = ["python3", "-m", "pytest", "-ra"]
        words += ["--exitfirst"] if options.to_first_failure else []
        words += [f"{self.suite.name}_suite.py::{name}" for name in options.tests]
        # pytest-reportlog writes each outcome as it comes; JUnit is written only at a regular end.
        words += [f"--timeout={test_seconds:.0f}", f"--report-log={self.report_file(results)}"]
        return shlex.join([*words, f"--junitxml={results}/junit.xml"])

    def read_report(self, text: str) -> dict[str, TestResult | None] | None:
        return read_reportlog(text)
