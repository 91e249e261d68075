"""What a build is: one boxlite under test, the files it needs in a guest, and how its suite runs there."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

from lab.base.activity import Task
from lab.base.errors import UsageError
from lab.base.files import hash_file
from lab.base.paths import Paths
from lab.catalog import Suite, load_suite
from lab.probes import Facts
from lab.record import BuildRecord, Stress, TestResult

# Where a guest has what the lab deploys. The administrator owns it, the suite's user can read it.
FOLDER = "/opt/lab"
# The build's own files, by the names that `fetch` gives them.
FILES = f"{FOLDER}/build"
# The OCI image layout that the boxes boot.
ROOTFS = f"{FOLDER}/rootfs"
# By how much the limits of a suite are longer in a guest under load.
UNDER_STRESS = 3.0


@dataclass(frozen=True)
class SuiteOptions:
    """How the suite is run: variables its tests get besides the usual, and whether the first failure ends it.

    `tests` names the tests to run, in this order; if it is empty, all are run as the suite has them. `seed` is
    what shuffled them, if they are shuffled. `stress` is what the guest is loaded with meanwhile. The suite's
    time limits are multiplied by `stretch`, and by `UNDER_STRESS` if there is a load.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    to_first_failure: bool = False
    tests: Sequence[str] = ()
    seed: int | None = None
    stretch: float = 1.0
    stress: Sequence[Stress] = ()

    @property
    def more_time(self) -> float:
        """The factor for its time limits."""
        return self.stretch * (UNDER_STRESS if self.stress else 1.0)


WHOLE_SUITE = SuiteOptions()


@dataclass(frozen=True)
class DeployStep:
    """A shell command that is run in a guest while a build is deployed there.

    `seconds` is its limit under hardware acceleration. The administrator runs it unless `as_suite_user` is set;
    if `check` is off, its failure is left for the suite to find.
    """

    command: str
    seconds: float
    as_suite_user: bool = False
    check: bool = True


@dataclass(frozen=True)
class Build(ABC):
    """One boxlite under test, of one kind: a module of `lab.builds.kinds`, whose name is the kind's prefix.

    `name` is its column in the table and its folder in a run: no other build has it, of whatever kind, and it
    changes with the build's content. `suite` is the suite that is run against it.
    """

    # What `--build` takes for this kind, as its help says it: "KIND:FILE".
    form: ClassVar[str]
    # Exit statuses of the command that runs its suite: every test had its turn; the runner itself failed, which
    # says nothing about boxlite. With any other status the suite ended before its time.
    completed: ClassVar[frozenset[int]] = frozenset({0, 1})
    runner_failed: ClassVar[frozenset[int]] = frozenset()
    # The suites that can be run against it instead of its usual one, which is in none of their names.
    more_suites: ClassVar[Sequence[str]] = ()
    # Whether the suite's tests go by the variables of remedies that change how boxlite is run.
    heeds_remedies: ClassVar[bool] = True

    name: str
    version: str
    # A suite has no hash; builds that differ in nothing else still compare as different.
    suite: Suite = field(kw_only=True, hash=False)

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self:
        """The build that `--build KIND:TEXT` names. Raises UsageError if there is no such build."""

    @classmethod
    def preview(cls, text: str) -> Self:
        """The build that `--build KIND:TEXT` names, for a plan that is only shown: nothing is made for it.

        Raises UsageError if there is no such build.
        """
        return cls.parse(text)

    def with_suite(self, name: str) -> Self:
        """The build with this suite, or itself if it has it. Another suite makes it another build.

        Raises UsageError if such a build cannot run it.
        """
        if name == self.suite.name:
            return self
        if name not in self.more_suites:
            raise UsageError(
                f"the suite {name} cannot be run against the build {self.name}",
                hint=f"it has the suites {', '.join(dict.fromkeys([self.suite.name, *self.more_suites]))}",
            )
        return replace(self, name=f"{name}-{self.name}", suite=load_suite(name))

    @classmethod
    def is_data(cls, _text: str) -> bool:
        """Whether no program of this host is executed for the build that `--build KIND:TEXT` names."""
        return False

    @property
    @abstractmethod
    def argument(self) -> str | None:
        """What `--build` takes to name this build again; None for the newest release, whichever that is."""

    @property
    def source(self) -> str:
        """Where it comes from, as its record says; `lab.builds.format_argument` turns that back into an
        argument.
        """
        return self.argument or self.version

    @property
    def remarks(self) -> Sequence[str]:
        """What whoever starts a run should know of this build, a sentence each."""
        return ()

    def check(self, _paths: Paths) -> None:  # noqa: B027 - `parse` may have seen the build already
        """Find out before any guest is booted whether the build exists.

        Raises UsageError if it does not, LabError if that could not be found out.
        """

    @abstractmethod
    def fetch(self, paths: Paths, facts: Facts, task: Task) -> dict[str, Path]:
        """The build's files for a guest with these facts: local files, by their names below `FILES`.

        Raises NotApplicable if the build has nothing for such a guest, LabError if a file cannot be fetched.
        """

    def laid_out(self, files: Mapping[str, Path], _folder: Path, _python: str) -> dict[str, Path]:
        """What a guest gets of the files, as files and folders of this host by their paths in the guest.

        What does not have to be done in the guest is done here: `_folder` is an empty folder of this host for
        that, `_python` the version of the guest's Python.
        """
        return {f"{FILES}/{name}": file for name, file in files.items()}

    @abstractmethod
    def steps(self) -> Sequence[DeployStep]:
        """What has to be done in a guest once the files are there, in this order."""

    @property
    def ingredients(self) -> Sequence[str]:
        """What decides, besides name, version, suite and steps, which files `fetch` gives."""
        return ()

    @property
    def _parts(self) -> list[str]:
        """Everything that decides what a guest has of this build, without its suite."""
        return [self.name, self.version, *self.ingredients, *map(repr, self.steps())]

    @property
    def digest(self) -> str:
        """A digest of everything that decides what a guest holds once this build is deployed there."""
        return _digest(*self._parts, *self.suite.texts())

    @property
    def suite_folder(self) -> str:
        """Where a guest has the files of the suite."""
        return f"{FOLDER}/suites/{self.suite.name}"

    @property
    def working_folder(self) -> str:
        """The folder in the guest that the tests are run in."""
        return self.suite_folder

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that the tests see."""
        return {"LAB_ROOTFS": ROOTFS}

    @abstractmethod
    def command(self, options: SuiteOptions, *, results: str, test_seconds: float) -> str:
        """One command, with its arguments, that runs the suite in its working folder with its environment.

        Everything that it leaves as evidence goes to the folder `results` in the guest. `test_seconds` is the
        limit of one test. The caller limits the whole suite and sets the variables of `options`.
        """

    def report_file(self, results: str) -> str:
        """The file in the guest that holds the tests' results. It grows while the suite runs, if it can."""
        return f"{results}/report.jsonl"

    @abstractmethod
    def read_report(self, text: str) -> dict[str, TestResult | None] | None:
        """The result of each test that began, by its name in the suite; None for a test that has no end.

        None instead of all results if the runner did not get as far as the tests. `text` has the whole lines of
        the report's file, at least one. The build under test can write to that file. Raises ValueError if it
        is damaged.
        """

    def record(self, files: Mapping[str, Path] | None = None) -> BuildRecord:
        """What a run keeps of this build, with the SHA-256 of each of its files."""
        digests = {name: hash_file(file) for name, file in (files or {}).items()}
        return BuildRecord(
            name=self.name,
            version=self.version,
            source=self.source,
            suite=self.suite.name,
            files=digests,
            digest=_digest(*self._parts),
            remarks=list(self.remarks),
        )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# The highest seed; the lowest is 0. Short enough to be typed.
HIGHEST_SEED = 999_999_999


def shuffle_tests(tests: Iterable[str], seed: int) -> list[str]:
    """Return the tests in the order that the seed gives, the same on every host and for every Python.

    Two tests have the same order in every suite that has both.
    """
    return sorted(tests, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
