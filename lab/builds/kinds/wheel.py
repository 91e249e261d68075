"""A wheel of boxlite's Python package: a release or a local file. Its suite runs under pytest."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import closure, pip, reportlog
from lab.builds._base import FILES, FOLDER, ROOTFS, Build, Step, SuiteOptions
from lab.catalog import Suite, load_suite
from lab.probes import Facts
from lab.record import TestResult

# The source of a release, in records.
INDEX = "PyPI"
# Where a guest has the unpacked wheels.
SITE = f"{FOLDER}/site"
# What the suite needs besides boxlite.
RUNNER = ("pytest", "pytest-timeout", "pytest-reportlog")
# The version of a build that stands for the newest release, whichever that is.
NEWEST = "newest"

UNPACK = f"""
set -e
python3 - <<'PROGRAM'
import pathlib, zipfile
for wheel in sorted(pathlib.Path("{FILES}").glob("*.whl")):
    zipfile.ZipFile(wheel).extractall("{SITE}")
PROGRAM
rm -r {FILES}
"""

FIRST_USE = "import boxlite, tempfile; boxlite.Boxlite(boxlite.Options(home_dir=tempfile.mkdtemp()))"


def _jailer() -> Suite:
    return load_suite("jailer")


@dataclass(frozen=True)
class Wheel(Build):
    """A release on the package index, or the local wheel `path`."""

    form = "release (0.10.8) or wheel file"
    # pytest's ExitCode: interrupted, internal error, wrong usage, no tests collected.
    runner_failed = frozenset({2, 3, 4, 5})

    path: Path | None = None
    suite: Suite = field(kw_only=True, hash=False, default_factory=_jailer)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The build of a version or of a wheel's path."""
        path = Path(text)
        if path.suffix == ".whl" or path.exists():
            return cls._local(path)
        try:
            version = str(Version(text))
        except InvalidVersion:
            raise UsageError(
                f"--build {text}: neither a version nor the path of a wheel",
                hint="for example --build 0.10.8, or --build dist/boxlite-0.10.8-cp313-….whl",
            ) from None
        return cls(version, version)

    @classmethod
    def newest(cls) -> Self:
        """The newest release. Raises LabError if nobody can tell which that is."""
        version = pip.newest()
        return cls(version, version)

    @classmethod
    def newest_stored(cls, paths: Paths) -> Self:
        """The newest release in the cache; no package index is asked. Raises UsageError if there is none."""
        version = pip.newest_stored(paths)
        return cls(version, version)

    @classmethod
    def before(cls, version: str) -> Self:
        """The newest release before a version.

        Raises UsageError if there is none, LabError if nobody can tell.
        """
        found = pip.newest_before(version)
        return cls(found, found)

    @classmethod
    def _local(cls, path: Path) -> Self:
        if not path.is_file():
            raise UsageError(f"--build {path}: no such file")
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise UsageError(f"--build {path}: {error}", hint="a wheel must keep its name") from error
        if name != pip.PROJECT:
            raise UsageError(f"--build {path}: a wheel of {name}, not of {pip.PROJECT}")
        try:
            closure.needs(path, pip.EVERY)
        except ValueError as error:
            raise UsageError(f"--build {path}: {error}") from error
        return cls(f"{version}@{sha256(path)[:8]}", str(version), path.resolve())

    @property
    def argument(self) -> str | None:
        if self.version == NEWEST:
            return None
        return str(self.path or self.version)

    @property
    def source(self) -> str:
        return str(self.path or INDEX)

    def check(self, paths: Paths) -> None:
        # A release with wheels in the cache was found before. A lock may be there without any.
        stored = pip.store(paths).glob(f"{pip.PROJECT}-{self.version}-*")
        if self.path is None and not any(each.is_dir() for each in stored):
            pip.check_version(self.version)

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        """Boxlite's wheel and those of pytest and its plugins, from the cache or the package index."""
        python = facts.python
        if self.path is None:
            wanted = [f"{pip.PROJECT}=={self.version}", *RUNNER]
            folder = f"{pip.PROJECT}-{self.version}-{pip.digest(wanted)}"
            wheels = pip.download(paths, wanted, python, folder, say)
        else:
            fits = parse_wheel_filename(self.path.name)[3] & pip.tags(python)
            if not fits or not closure.allows(self.path, python):
                raise NotApplicable(f"{self.path.name} is not for Python {python}")
            wanted = [*RUNNER, *map(str, closure.needs(self.path, python))]
            wheels = [self.path, *pip.download(paths, wanted, python, f"runner-{pip.digest(wanted)}", say)]
        return {wheel.name: wheel for wheel in wheels}

    def steps(self) -> Sequence[Step]:
        compiling = f"LAB_ROOTFS={ROOTFS} PYTHONPATH={SITE} python3 -m pytest --quiet --collect-only"
        return [
            Step(UNPACK, seconds=30),
            # What Python compiles on a first import is compiled here once, and not in every cell.
            Step(f"cd {self.working_folder} && {compiling}", seconds=30),
            # boxlite unpacks its runtime when it is first used, and a first login starts the user's own service
            # manager. If a build cannot even do that, the suite will show it.
            Step(
                f"PYTHONPATH={SITE} python3 -c {shlex.quote(FIRST_USE)}",
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
