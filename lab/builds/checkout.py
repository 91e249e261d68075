"""A git checkout on this host: its state, and upstream's tests, built in it as its Makefile does and kept."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.base import process, scratch
from lab.base.errors import LabError, UsageError
from lab.base.files import plain, put_in_place
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.builds.nextest import MANIFEST

# Asking git about a large checkout on a slow disk.
GIT_SECONDS = 120.0
# What a build writes into a checkout is no change of it, whether or not git ignores it. But a lock file that is
# in the commit may be changed.
BUILT, LOCK = "target", "Cargo.lock"
# Programs that a checkout's own configuration would have git start. Its filters stay: they decide its content.
NO_PROGRAMS = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null")


@dataclass(frozen=True)
class Tree:
    """A checkout. `changes` is a digest of what differs from the commit; it is empty if nothing does."""

    folder: Path
    commit: str
    changes: str

    @property
    def version(self) -> str:
        """The commit, and whether there is more in the checkout."""
        return self.commit[:12] + ("-dirty" if self.changes else "")

    @classmethod
    def read(cls, folder: Path) -> "Tree":
        """Ask git about a folder. Raises UsageError if it is no checkout, or has no commit."""
        if shutil.which("git") is None:
            raise UsageError(f"{folder}: a checkout needs git, which is not installed", hint="install git")
        try:
            commit = _git(folder, "rev-parse", "--verify", "HEAD^{commit}").strip()
        except process.CommandFailed as error:
            raise UsageError(
                f"{folder}: expected a git checkout with a commit: {' '.join(error.output.split())}",
                hint="clone boxlite's repository with git, and name its folder",
            ) from error
        return cls(folder, commit, _changes(folder))

    def missing_submodules(self) -> list[str]:
        """The submodules that are not checked out, or that have conflicts."""
        return [path for sign, path in _submodules(self.folder) if sign in "-U"]


def _changes(folder: Path) -> str:
    """A digest of what differs from the commits of a checkout and of its submodules, empty if nothing does."""
    inner = [folder / path for sign, path in _submodules(folder) if sign not in "-U"]
    found = {each: _tree(each) for each in (folder, *inner)}
    if all(tree == _git(each, "rev-parse", "HEAD^{tree}").strip() for each, tree in found.items()):
        return ""
    return hashlib.sha256("\0".join(found.values()).encode()).hexdigest()


def _tree(folder: Path) -> str:
    """The ID that git gives to all that it does not ignore in a checkout, which stays as it is."""
    own = folder / _git(folder, "rev-parse", "--git-path", "objects").strip()
    with scratch.temporary() as workspace:
        (workspace / "objects").mkdir()
        apart = {
            "GIT_INDEX_FILE": str(workspace / "index"),
            "GIT_OBJECT_DIRECTORY": str(workspace / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(own),
        }
        _git(folder, "read-tree", "HEAD", **apart)
        is_there = _git(folder, "ls-files", "--", LOCK, **apart)
        built = [name for name in (BUILT, *([] if is_there else [LOCK])) if not _is_ignored(folder, name)]
        _git(folder, "add", "--all", "--", ":(top)", *(f":(exclude){name}" for name in built), **apart)
        return _git(folder, "write-tree", **apart).strip()


def _is_ignored(folder: Path, name: str) -> bool:
    """Whether git ignores this already: it refuses to leave out what it does not look at."""
    try:
        _git(folder, "check-ignore", "--quiet", "--no-index", name)
    except process.CommandFailed:
        return False
    return True


def _submodules(folder: Path) -> list[tuple[str, str]]:
    """A checkout's submodules, also those of its submodules: git's sign for their state, and their path."""
    lines = _git(folder, "submodule", "status", "--recursive").splitlines()
    # "-COMMIT PATH", or " COMMIT PATH (DESCRIPTION)".
    return [(line[0], line[1:].split(" ", 1)[1].rsplit(" (", 1)[0]) for line in lines if " " in line[1:]]


def _git(folder: Path, *words: str, **variables: str) -> str:
    """What git prints. Raises CommandFailed."""
    environment = {"GIT_OPTIONAL_LOCKS": "0", **variables}
    return process.run(["git", *NO_PROGRAMS, "-C", folder, *words], timeout=GIT_SECONDS, env=environment)


# Upstream's runtime has a kernel in it.
BUILD_SECONDS = 4 * 3600.0
ASK_SECONDS = 300.0
# Upstream's package, and the features that its Makefile builds its integration tests with.
PACKAGE, FEATURES = "boxlite", ("krun", "gvproxy")
# The Makefile's goal for the runtime, which has been called by both names.
RUNTIME = re.compile(r"^runtime\\?([:-])debug\s*:", re.MULTILINE)
TOOLS = ("git", "cargo", "rustc", "cc")
# What else the runtime is built with, as upstream's script for Debian installs it.
RUNTIME_TOOLS = (
    *("make", "go", "protoc", "meson", "ninja", "pkg-config", "llvm-config"),
    *("musl-gcc", "flex", "bison", "bc", "python3"),
)
ARCHIVE, LOG = "tests.tar.zst", "build.log"
PARTIAL = ".partial-checkout-"


@dataclass(frozen=True)
class Recipe:
    """What is built in a tree: the tests of a package that `which` names to Cargo, with these features.

    Without `package`, those of the whole workspace. None for `features`: upstream's, as far as there are any.
    """

    tree: Tree
    which: Sequence[str]
    package: str | None = None
    features: str | None = None

    @property
    def digest(self) -> str:
        """A short digest of all of this; the path of the tree is compiled into the tests."""
        tree = self.tree
        parts = [str(tree.folder), tree.commit, tree.changes, *self.which]
        parts += [str(self.package), str(self.features)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def folder(self, paths: Paths) -> Path:
        """Where the archive is kept, with the workspace's manifests and the log of its build."""
        return store(paths) / f"{self.tree.version}-{self.digest}"


def store(paths: Paths) -> Path:
    """The folder of the cache that holds what was built. It can be deleted at any time."""
    return paths.cache / "checkouts"


def stored(paths: Paths, wanted: Recipe) -> Path | None:
    """The folder of what was built before; None if nothing was."""
    folder = wanted.folder(paths)
    return folder if (folder / ARCHIVE).is_file() else None


def built(paths: Paths, wanted: Recipe, nextest: Path, say: Callable[[str], None]) -> Path:
    """The folder with the archive, which is built if it was not before. `say` gets each line of the build.

    Raises UsageError if the checkout or this host lacks something, before anything is built; LabError if the
    build fails.
    """
    folder = wanted.folder(paths)
    parent = paths.make(folder.parent)
    with locked(folder.with_suffix(".lock"), BUILD_SECONDS, "this checkout to be built", say):
        if found := stored(paths, wanted):
            say(f"{wanted.tree.folder}: {wanted.tree.version} was built before, in {found}")
            return found
        _check(wanted)
        packages = _packages(wanted.tree.folder)
        cargo = _cargo_words(wanted, packages)
        with scratch.make_in(parent, PARTIAL) as partial:
            try:
                _build(wanted, [str(nextest), "nextest", "archive", *cargo], partial, say)
                _copy_manifests(wanted.tree.folder, packages, partial)
                after = Tree.read(wanted.tree.folder)
                if after != wanted.tree:
                    said = f"{wanted.tree.version} and is {after.version} now"
                    say(f"{after.folder} was {said}: something changed it meanwhile")
                partial.chmod(0o755)
                put_in_place(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def goal(folder: Path) -> str | None:
    """The goal of a checkout's Makefile that builds boxlite's runtime; None if it has none."""
    for file in (folder / "Makefile", *sorted(folder.glob("make/*.mk"))):
        if file.is_file() and (found := RUNTIME.search(file.read_text(errors="replace"))):
            return f"runtime{found[1]}debug"
    return None


def _check(wanted: Recipe) -> None:
    """Raise UsageError with everything that is missing, so that nobody finds out one by one."""
    folder = wanted.tree.folder
    tools = [*TOOLS, *(RUNTIME_TOOLS if goal(folder) else ())]
    lacks = [f"no program {name}" for name in tools if shutil.which(name, path=_path()) is None]
    lacks += [f"the submodule {path} is not checked out" for path in wanted.tree.missing_submodules()]
    if lacks:
        setup = f"make -C {folder} setup" if goal(folder) else "git submodule update --init --recursive"
        raise UsageError(
            f"{folder} cannot be built here: {'; '.join(lacks)}",
            hint=f"install what is missing; for the checkout itself: {setup}",
        )


def _packages(folder: Path) -> dict[str, Any]:
    """The packages of the workspace by name, as Cargo describes them. Raises UsageError."""
    command = ["cargo", "metadata", "--no-deps", "--format-version=1"]
    try:
        printed = _run(folder, command, ASK_SECONDS)
        document = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
        root, packages = document["workspace_root"], {each["name"]: each for each in document["packages"]}
    except (process.CommandFailed, StopIteration, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / MANIFEST}: expected a workspace that Cargo can read: {error}") from error
    if Path(root) != folder:
        raise UsageError(f"{folder / MANIFEST}: expected that of a workspace; it belongs to {root}")
    return packages


def _cargo_words(wanted: Recipe, packages: dict[str, Any]) -> list[str]:
    """Cargo's options for a recipe. Raises UsageError if there is no such package, feature or test."""
    manifest = wanted.tree.folder / MANIFEST
    name = wanted.package or (PACKAGE if PACKAGE in packages else None)
    if name is not None and name not in packages:
        raise UsageError(f"{manifest}: expected the package {name}; there are {', '.join(packages)}")
    chosen = [packages[name]] if name else list(packages.values())
    known = {feature for each in chosen for feature in each["features"]}
    if wanted.features is None:
        whole = "--no-default-features" not in wanted.which
        features = [each for each in FEATURES if each in known] if whole else []
    else:
        features = [each for each in wanted.features.split(",") if each]
        if unknown := [each for each in features if each not in known and "/" not in each]:
            raise UsageError(
                f"{manifest}: no feature is called {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )
    tests = {target["name"] for each in chosen for target in each["targets"] if "test" in target["kind"]}
    for word in wanted.which:
        if word.startswith("--test=") and (test := word.removeprefix("--test=")) not in tests:
            raise UsageError(
                f"{manifest}: expected the tests {test}; there are {', '.join(sorted(tests)) or 'none'}",
                hint="choose others with suite=NAME or filter=EXPR",
            )
    words = ["-p", name] if name else ["--workspace"]
    return [*words, *([f"--features={','.join(features)}"] if features else []), *wanted.which]


def _build(wanted: Recipe, archive: Sequence[str], into: Path, say: Callable[[str], None]) -> None:
    """Build the runtime, if the Makefile can, and the archive. A log that tells a failure is kept beside."""
    folder, runtime = wanted.tree.folder, goal(wanted.tree.folder)
    commands = [["make", runtime]] if runtime else []
    commands.append([*archive, f"--archive-file={into / ARCHIVE}"])
    try:
        with (into / LOG).open("w") as log:
            for command in commands:
                _logged(folder, command, log, say)
    except process.CommandFailed as error:
        kept = Path(shutil.copy(into / LOG, into.parent / f"{wanted.tree.version}-{wanted.digest}.log"))
        raise LabError(
            f"{folder} could not be built: {error}", hint=f"the whole output is in {kept}"
        ) from error


def _copy_manifests(folder: Path, packages: dict[str, Any], into: Path) -> None:
    for file in [folder / MANIFEST, *(Path(each["manifest_path"]) for each in packages.values())]:
        copy = into / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def _logged(folder: Path, command: Sequence[str], log: IO[str], say: Callable[[str], None]) -> None:
    def on_line(line: str) -> None:
        log.write(f"{line}\n")
        say(plain(line))

    on_line(f"+ {process.display(command)}")
    _run(folder, command, BUILD_SECONDS, on_line)


def _run(
    folder: Path, command: Sequence[str], seconds: float, on_line: Callable[[str], None] = lambda line: None
) -> str:
    """Run a command in the checkout. Raises CommandFailed."""
    environment = {"PATH": _path(), "CARGO_TERM_COLOR": "never"}
    return process.run(["env", "-C", folder, *command], timeout=seconds, env=environment, on_line=on_line)


def _path() -> str:
    """Where programs are looked for: upstream's Makefile adds the folder in which rustup puts Cargo."""
    return f"{Path('~/.cargo/bin').expanduser()}:{os.environ.get('PATH', os.defpath)}"
