"""Wheels of boxlite's Python package: a release, a local file, or a folder with one for each Python.

Its suite runs under pytest. Behind ",suite=" is the name of another one than the usual.
"""

import hashlib
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from lab.base import archives
from lab.base.activity import Task
from lab.base.errors import NotApplicable, UsageError
from lab.base.files import hash_file
from lab.base.paths import Paths
from lab.builds import elf, wheels
from lab.builds.pytest_tests import RUNNER, PytestTests
from lab.catalog import Suite, load_suite
from lab.probes import Facts

# The source of a release, in records.
INDEX = "PyPI"
# Behind it is the name of the suite, in what `--build` takes.
SUITE_WORD = ",suite="

FIRST_USE = "import boxlite, tempfile; boxlite.Boxlite(boxlite.Options(home_dir=tempfile.mkdtemp()))"


@dataclass(frozen=True)
class Wheel(PytestTests):
    """A release on the package index, or what is at the local `path`: a wheel, or a folder of wheels."""

    form = "release (0.10.8, 0.10.x, previous or newest), wheel file or folder of wheels"
    more_suites = ("lifecycle", "volumes", "reboot")
    first_use = f"python3 -c {shlex.quote(FIRST_USE)}"

    path: Path | None = None
    suite: Suite = field(kw_only=True, hash=False, default_factory=lambda: load_suite("jailer"))

    @classmethod
    def release(cls, version: str) -> Self:
        """The release of a version, whether or not there is one: see `check`."""
        return cls(version, version)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The build of a version, of a word for a release, or of a path.

        Raises UsageError for anything else, LabError if nobody can tell which release a word stands for.
        """
        text, comma, suite = text.partition(SUITE_WORD)
        if comma:
            return cls.parse(text).with_suite(suite)
        if wheels.is_word(text):
            return cls.release(wheels.choose_release(text, wheels.list_releases(), INDEX))
        try:
            return cls.release(str(Version(text)))
        except InvalidVersion:
            pass
        path = Path(text)
        if path.suffix == ".whl" or (text and path.exists()):
            version = read_version(path)
            return cls(f"{version}@{_digest(path)}", str(version), path.resolve())
        raise UsageError(
            f"--build {text}: neither a version nor the path of a wheel or of a folder of wheels",
            hint="for example --build 0.10.8, --build 0.10.x, or --build dist/boxlite-0.10.8-cp313-….whl",
        )

    @classmethod
    def is_data(cls, _text: str) -> bool:
        return True

    @property
    def argument(self) -> str | None:
        if self.suite.name in self.more_suites:
            return f"{self.path or self.version}{SUITE_WORD}{self.suite.name}"
        if self.version == wheels.NEWEST:
            return None
        return str(self.path or self.version)

    @property
    def source(self) -> str:
        return str(self.path or INDEX)

    def check(self, paths: Paths) -> None:
        # Whoever stored wheels of a release had found it. A lock may be there without any.
        stored = wheels.get_wheel_store(paths).glob(f"{wheels.PROJECT}-{self.version}-*")
        if self.path is None and not any(folder.is_dir() for folder in stored):
            wheels.check_version(self.version)

    def fetch(self, paths: Paths, facts: Facts, task: Task) -> dict[str, Path]:
        """Boxlite's wheel and those of pytest and its plugins, from the cache or the package index."""
        if self.path is None:
            return wheels.download_wheels(
                paths, [f"{wheels.PROJECT}=={self.version}", *RUNNER], facts.python, facts.arch, task
            )
        wheel = choose(self.path, facts)
        needs, _ = wheels.read_requirements(wheel)
        return {
            wheel.name: wheel,
            **wheels.download_wheels(paths, [*RUNNER, *needs], facts.python, facts.arch, task),
        }


def choose(path: Path, facts: Facts) -> Path:
    """The wheel at a path for a guest's Python; of several, the one that pip prefers among those that can run.

    Raises NotApplicable if there is none for that Python.
    """
    python, files = facts.python, _files(path)
    ranks = {tag: rank for rank, tag in enumerate(wheels.list_tags(python, facts.arch))}
    by_rank = sorted(
        (min(ranks[tag] for tag in fitting), wheel)
        for wheel in files
        if (fitting := parse_wheel_filename(wheel.name)[3] & ranks.keys())
        and wheels.read_requirements(wheel)[1].contains(f"{python}.0")
    )
    if not by_rank:
        if path.is_dir():
            names = ", ".join(wheel.name for wheel in files)
            raise NotApplicable(f"{path} has no wheel for Python {python} on {facts.arch}, only {names}")
        raise NotApplicable(f"{path.name} is not for Python {python} on {facts.arch}")
    can_run = (wheel for _, wheel in by_rank if elf.find_unmet_need(elf.read_needs(wheel), facts) is None)
    return next(can_run, by_rank[0][1])


def read_version(path: Path) -> Version:
    """The version of the wheel or wheels at a path, each of which is read whole.

    Raises UsageError if there is none, or if they are not all of boxlite and of one version.
    """
    versions: dict[str, Version] = {}
    for wheel in _files(path):
        try:
            if not wheel.is_file():
                raise ValueError("no such file")
            project, versions[wheel.name], _, _ = parse_wheel_filename(wheel.name)
            if project != wheels.PROJECT:
                raise ValueError(f"a wheel of {project}, not of {wheels.PROJECT}")
            wheels.read_requirements(wheel)
            archives.check_wheel(wheel)
        except (ValueError, archives.DamagedArchive) as error:
            label = "" if wheel == path else f" {wheel.name}:"
            raise UsageError(
                f"--build {path}:{label} {error}",
                hint=f"name a wheel of {wheels.PROJECT} under the file name with which it was built",
            ) from error
    if not versions:
        raise UsageError(
            f"--build {path}: a folder without wheels",
            hint=f"it must hold wheels of {wheels.PROJECT}, one per Python",
        )
    if len(set(versions.values())) > 1:
        wheel_versions = ", ".join(f"{version} ({name})" for name, version in versions.items())
        raise UsageError(
            f"--build {path}: wheels of several versions: {wheel_versions}",
            hint="leave one version in the folder, or name each wheel with its own --build",
        )
    return next(iter(versions.values()))


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.whl")) if path.is_dir() else [path]


def _digest(path: Path) -> str:
    """A short digest of the wheels at a path. That of a folder also depends on the wheels' names."""
    if not path.is_dir():
        return hash_file(path)[:8]
    lines = [f"{hash_file(wheel)} {wheel.name}\n" for wheel in _files(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:8]
