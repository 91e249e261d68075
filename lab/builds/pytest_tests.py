"""Builds whose suite runs under pytest, with the guest's own Python."""

import compileall
import shlex
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base.paths import Paths
from lab.builds import archives, pip, reportlog
from lab.builds._base import FOLDER, ROOTFS, Build, Step, SuiteOptions
from lab.record import TestResult

# Where a guest has the unpacked wheels.
SITE = f"{FOLDER}/site"
# What every such suite needs.
RUNNER = ("pytest", "pytest-timeout", "pytest-reportlog")


def runner(paths: Paths, python: str, say: Callable[[str], None], more: Sequence[str] = ()) -> list[Path]:
    """The wheels of pytest and its plugins, and of `more` requirements, for a guest's Python.

    Raises as `pip.download` does.
    """
    wanted = [*RUNNER, *more]
    return pip.download(paths, wanted, python, f"runner-{pip.digest(wanted)}", say)


@dataclass(frozen=True)
class PytestTests(Build):
    """A build that a suite of the lab's own drives: `NAME_suite.py` in the suite's folder."""

    # pytest's ExitCode: interrupted, internal error, wrong usage, no tests collected.
    runner_failed = frozenset({2, 3, 4, 5})
    # pytest runs what its arguments name in the order of these.
    keeps_order = True

    @property
    @abstractmethod
    def first_use(self) -> str:
        """A command of the suite's user that uses the build once, so that no test pays for what comes first."""

    def unpacking(self) -> Sequence[Step]:
        """What has to be done with the build's own files, before pytest first reads the suite."""
        return ()

    def laid_out(self, files: Mapping[str, Path], folder: Path, python: str) -> dict[str, Path]:
        """The wheels unpacked, and compiled if this host has the guest's Python; the rest as it is."""
        site = folder / "site"
        wheels = [name for name in files if name.endswith(".whl") and "/" not in name]
        for name in sorted(wheels):
            with archives.open_zip(files[name]) as wheel:
                wheel.extractall(site)
        if python == f"{sys.version_info.major}.{sys.version_info.minor}":
            compileall.compile_dir(site, ddir=SITE, quiet=2)
        rest = {name: file for name, file in files.items() if name not in wheels}
        return {SITE: site, **super().laid_out(rest, folder, python)}

    def steps(self) -> Sequence[Step]:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        # What Python compiles on a first import is compiled here once, and not in every cell.
        compiling = f"LAB_ROOTFS={ROOTFS} PYTHONPATH={SITE} python3 -m pytest --quiet --collect-only"
        return [
            *self.unpacking(),
            Step(f"cd {self.working_folder} && {compiling}", seconds=30),
            # boxlite unpacks its runtime when it is first used, and a first login starts the user's own service
            # manager. If a build cannot even do that, the suite will show it.
            Step(
                f"cd {self.working_folder} && export {variables} && {self.first_use}",
                seconds=30,
                as_suite_user=True,
                check=False,
            ),
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

    def report_file(self, results: str) -> str:
        return f"{results}/report.jsonl"

    def read_report(self, text: str) -> dict[str, TestResult | None] | None:
        return reportlog.read(text)
