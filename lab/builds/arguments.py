"""What stands behind the prefix of a build of Rust's tests: a file, and words such as `at=/opt/boxlite`."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lab.base.errors import UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds.nextest import MANIFEST, VERSION, check_program, program
from lab.catalog import Suite, load_suites

Ignored = Literal["default", "only", "all"]
# The words that may follow the file, each with `=` and its value.
WORDS = ("suite", "runtime", "cache", "at", "manifests", "nextest", "filter", "ignored")
# The suite if no word names one.
SUITE = "upstream-jailer"
# Folders that the suite's user cannot enter, that a boot empties, or that are the guest's own.
NO_PLACE = ("/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys", "/usr", "/etc", "/opt/lab")  # noqa: S108


@dataclass(frozen=True)
class Words:
    """The file and the words; docs/guides/upstream-tests.md says what they are for.

    `runtime` and `cache` are folders to deploy, `manifests` the one that has the manifests of the workspace,
    `nextest` the program to use instead of the lab's own, `filter` an expression of nextest for the tests. `at`
    is the guest's folder for the workspace; None for where the build was made. `suite` classifies the tests.
    """

    file: Path
    suite: Suite = field(hash=False)
    runtime: Path | None = None
    cache: Path | None = None
    at: str | None = None
    manifests: Path | None = None
    nextest: Path | None = None
    filter: str | None = None
    ignored: Ignored = "all"

    @classmethod
    def parse(cls, kind: str, text: str) -> "Words":
        """Read FILE[,WORD=VALUE...]. A value may have commas. Raises UsageError."""
        file, given = split(kind, text, WORDS)
        path = Path(file)
        if not path.is_file():
            raise UsageError(
                f"--build {kind}:{text}: {file}: no such file",
                hint=f"{kind}:FILE, then words such as ,at=/opt/boxlite; there are {', '.join(WORDS)}",
            )
        return cls.read(kind, path, given)

    @classmethod
    def read(cls, kind: str, path: Path, given: dict[str, str]) -> "Words":
        """The words in `given` behind a file or a folder. Raises UsageError."""
        ignored = given.pop("ignored", "all")
        if ignored not in get_args(Ignored):
            raise UsageError(f"--build {kind}:…,ignored={ignored}: expected {', '.join(get_args(Ignored))}")
        suite = rust_suite(given.pop("suite", SUITE))
        at, wanted = given.pop("at", None), given.pop("filter", None)
        if at is not None:
            at = _place(at, f"at={at}")
        folders = {name: Path(value).resolve() for name, value in given.items()}
        for name in ("runtime", "cache", "manifests"):
            if name in folders and not folders[name].is_dir():
                raise UsageError(f"--build {kind}:…,{name}={given[name]}: no such folder")
        if "manifests" in folders and not (folders["manifests"] / MANIFEST).is_file():
            raise UsageError(f"{folders['manifests']}: expected the workspace's {MANIFEST}; there is none")
        if "nextest" in folders:
            check_program(folders["nextest"])
        return cls(path.resolve(), suite, at=at, filter=wanted, ignored=ignored, **folders)  # type: ignore[arg-type]

    def argument(self, kind: str, *others: str) -> str:
        """These words again, behind their kind, and other words."""
        given = {name: getattr(self, name) for name in WORDS if name not in ("suite", "ignored")}
        words = [f"suite={self.suite.name}"] if self.suite.name != SUITE else []
        words += [f"{name}={value}" for name, value in given.items() if value is not None]
        words += [f"ignored={self.ignored}"] if self.ignored != "all" else []
        return ",".join([f"{kind}:{self.file}", *words, *others])

    def program(self, paths: Paths) -> Path:
        """The cargo-nextest to use. Raises LabError if it cannot be fetched."""
        return self.nextest or program(paths)

    @property
    def series(self) -> str:
        """What follows the kind in the names of builds whose suite is not the usual one."""
        return f"-{self.suite.name}" if self.suite.name != SUITE else ""

    @property
    def expression(self) -> str:
        """The expression for the tests of an archive."""
        return self.filter or self.suite.filter

    def choice(self, expression: str) -> list[str]:
        """What nextest is told to choose these tests."""
        return [f"-E={expression}", f"--run-ignored={self.ignored}"]

    def digest(self, files: Mapping[str, Path], *more: str) -> str:
        """A short digest of all that decides what the tests do: files, words, version of nextest."""
        parts = [*more, self.suite.name, str(self.filter), self.ignored]
        parts += [sha256(self.nextest) if self.nextest else VERSION]
        parts += [f"{name} {sha256(file)}" for name, file in sorted(files.items())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def split(kind: str, text: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """A text's path, and the known words behind it. Raises UsageError if one is given twice."""
    path, *rest = re.split(rf",(?=(?:{'|'.join(known)})=)", text)
    given = dict(word.split("=", 1) for word in rest)
    if len(given) < len(rest):
        raise UsageError(f"--build {kind}:{text}: a word is given twice", hint=f"words: {', '.join(known)}")
    return path, given


def rust_suite(name: str) -> Suite:
    """One of the suites of Rust tests. Raises UsageError if there is no such suite."""
    known = {suite.name: suite for suite in load_suites() if suite.filter}
    if name not in known:
        raise UsageError(
            f"suite={name}: no suite of upstream's tests is called so", hint=f"there are {', '.join(known)}"
        )
    return known[name]


def _place(folder: str, what: str) -> str:
    """A folder of the guest in which a workspace may be. Raises UsageError."""
    path = Path(folder)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        raise UsageError(f"{what}: expected an absolute path such as /opt/boxlite")
    if any(path.is_relative_to(each) for each in NO_PLACE):
        raise UsageError(
            f"{what}: in a guest, tests of an ordinary user cannot be kept there",
            hint="build at a path such as /opt/boxlite, or, if the tests do not use the path that is compiled "
            "into them, name another with at=/opt/boxlite",
        )
    return str(path)


def place(words: Words, workspace: Path) -> str:
    """Where a guest has the workspace: as the words say, or where it was built. Raises UsageError."""
    return words.at or _place(str(workspace), f"{words.file.name}, built in {workspace}")
