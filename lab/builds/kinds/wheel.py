"""Wheels of boxlite's Python package: a release, a local file, or a folder with one for each Python.

Its suite runs under pytest.
"""

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import archives, elf, wheels
from lab.builds.pytest_tests import RUNNER, PytestTests, runner
from lab.catalog import Suite, load_suite
from lab.probes import Facts

# The source of a release, in records.
INDEX = "PyPI"
# Older ones are not on the package index, and the suite was never tried with one.
OLDEST = Version("0.9.0")
# The version of a build that stands for the newest release, whichever that is.
NEWEST = "newest"

FIRST_USE = "import boxlite, tempfile; boxlite.Boxlite(boxlite.Options(home_dir=tempfile.mkdtemp()))"


@dataclass(frozen=True)
class Wheel(PytestTests):
    """A release on the package index, or what is at the local `path`: a wheel, or a folder of wheels."""

    form = "release (0.10.8, 0.10.x or previous), wheel file or folder of wheels"

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
        if wheels.is_word(text):
            return cls.release(wheels.choose_release(text, wheels.releases(), INDEX))
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
        if self.version == NEWEST:
            return None
        return str(self.path or self.version)

    @property
    def source(self) -> str:
        return str(self.path or INDEX)

    def check(self, paths: Paths) -> None:
        # Whoever stored wheels of a release had found it. A lock may be there without any.
        stored = wheels.store(paths).glob(f"{wheels.PROJECT}-{self.version}-*")
        if self.path is None and not any(folder.is_dir() for folder in stored):
            wheels.check_version(self.version)

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        """Boxlite's wheel and those of pytest and its plugins, from the cache or the package index."""
        if Version(self.version) < OLDEST:
            raise NotApplicable(f"the suite needs boxlite {OLDEST} or newer, and this is {self.version}")
        if self.path is None:
            required = [f"{wheels.PROJECT}=={self.version}", *RUNNER]
            folder = f"{wheels.PROJECT}-{self.version}-{wheels.digest(required)}"
            files = wheels.download(paths, required, facts.python, folder, say)
        else:
            own = choose(self.path, facts)
            files = [own, *runner(paths, facts.python, say, wheels.needs(own))]
        return {file.name: file for file in files}

    @property
    def first_use(self) -> str:
        return f"python3 -c {shlex.quote(FIRST_USE)}"


def choose(path: Path, facts: Facts) -> Path:
    """The wheel at a path for a guest's Python; of several, the one that pip prefers among those that can run.

    Raises NotApplicable if there is none for that Python.
    """
    python, files = facts.python, _files(path)
    ranks = {tag: rank for rank, tag in enumerate(wheels.tags(python))}
    fitting = [
        (min(ranks[tag] for tag in fits), wheel)
        for wheel in files
        if (fits := parse_wheel_filename(wheel.name)[3] & ranks.keys()) and wheels.allows(wheel, python)
    ]
    if not fitting:
        if path.is_dir():
            names = ", ".join(wheel.name for wheel in files)
            raise NotApplicable(f"{path} has no wheel for Python {python}, only {names}")
        raise NotApplicable(f"{path.name} is not for Python {python}")
    best, *others = (wheel for _, wheel in sorted(fitting))
    if not others:
        return best
    return next((wheel for wheel in (best, *others) if elf.why_not(wheel, facts) is None), best)


def read_version(path: Path) -> Version:
    """The version of the wheel or wheels at a path, each of which is looked into.

    Raises UsageError if there is none, or if they are not all of boxlite and of one version.
    """
    if not (files := _files(path)):
        raise UsageError(
            f"--build {path}: a folder without wheels",
            hint=f"it must hold wheels of {wheels.PROJECT}, one per Python",
        )
    versions = {wheel.name: _version(path, wheel) for wheel in files}
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{version} ({name})" for name, version in versions.items())
        raise UsageError(
            f"--build {path}: wheels of several versions: {listed}",
            hint="leave one version in the folder, or name each wheel with its own --build",
        )
    return next(iter(versions.values()))


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.whl")) if path.is_dir() else [path]


def _version(named: Path, wheel: Path) -> Version:
    where = f"--build {named}" if named == wheel else f"--build {named}: {wheel.name}"
    if not wheel.is_file():
        raise UsageError(f"{where}: no such file")
    try:
        name, version, _, _ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise UsageError(f"{where}: {error}", hint="a wheel must keep its name") from error
    if name != wheels.PROJECT:
        raise UsageError(f"{where}: a wheel of {name}, not of {wheels.PROJECT}")
    try:
        wheels.needs(wheel)
        archives.check_zip(wheel)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", hint="copy or build the wheel again") from error
    return version


def _digest(path: Path) -> str:
    """A short digest of the wheels at a path. That of a folder also depends on the wheels' names."""
    if not path.is_dir():
        return sha256(path)[:8]
    lines = [f"{sha256(wheel)} {wheel.name}\n" for wheel in _files(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:8]
