"""Wheels of boxlite's Python package: a release, or local files. Its suite runs under pytest."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from packaging.version import InvalidVersion, Version

from lab.base.errors import NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import local, pip
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


def _jailer() -> Suite:
    return load_suite("jailer")


@dataclass(frozen=True)
class Wheel(PytestTests):
    """A release on the package index, or what is at the local `path`: a wheel, or a folder of wheels."""

    form = "release (0.10.8, 0.10.x or previous), wheel file or folder of wheels"

    path: Path | None = None
    suite: Suite = field(kw_only=True, hash=False, default_factory=_jailer)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The build of a version, of a word for a release, or of a path.

        Raises UsageError for anything else, LabError if nobody can tell which release a word stands for.
        """
        if pip.is_word(text):
            return cls._release(pip.choose_release(text, pip.releases(), INDEX))
        try:
            return cls._release(str(Version(text)))
        except InvalidVersion:
            pass
        path = Path(text)
        if path.suffix == ".whl" or (text and path.exists()):
            version = local.read_version(path)
            return cls(f"{version}@{local.digest(path)}", str(version), path.resolve())
        raise UsageError(
            f"--build {text}: neither a version nor the path of a wheel or of a folder of wheels",
            hint="for example --build 0.10.8, --build 0.10.x, or --build dist/boxlite-0.10.8-cp313-….whl",
        )

    @classmethod
    def _release(cls, version: str) -> Self:
        return cls(version, version)

    @classmethod
    def newest(cls) -> Self:
        """The newest release. Raises LabError if nobody can tell which that is."""
        return cls._release(pip.newest())

    @classmethod
    def stored(cls, paths: Paths, word: str | None) -> Self:
        """The release in the cache that a word stands for, or the newest one; no package index is asked.

        Raises UsageError if there is none.
        """
        known = pip.stored(paths)
        return cls._release(str(known[-1]) if word is None else pip.choose_release(word, known, "the cache"))

    @classmethod
    def before(cls, version: str) -> Self:
        """The newest release before a version.

        Raises UsageError if there is none, LabError if nobody can tell.
        """
        return cls._release(pip.newest_before(version))

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
        # A release with wheels in the cache was found before. A lock may be there without any.
        stored = pip.store(paths).glob(f"{pip.PROJECT}-{self.version}-*")
        if self.path is None and not any(each.is_dir() for each in stored):
            pip.check_version(self.version)

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        """Boxlite's wheel and those of pytest and its plugins, from the cache or the package index."""
        if Version(self.version) < OLDEST:
            raise NotApplicable(f"the suite needs boxlite {OLDEST} or newer, and this is {self.version}")
        python = facts.python
        if self.path is None:
            wanted = [f"{pip.PROJECT}=={self.version}", *RUNNER]
            folder = f"{pip.PROJECT}-{self.version}-{pip.digest(wanted)}"
            wheels = pip.download(paths, wanted, python, folder, say)
        else:
            own = local.choose(self.path, facts)
            needed = [str(each) for each in pip.needs(own, python)]
            wheels = [own, *runner(paths, python, say, needed)]
        return {wheel.name: wheel for wheel in wheels}

    @property
    def first_use(self) -> str:
        return f"python3 -c {shlex.quote(FIRST_USE)}"
