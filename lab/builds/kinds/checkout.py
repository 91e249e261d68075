"""A checkout of upstream's repository: its tests are built in it on this host, archived and kept.

Building runs the checkout's own code: its Makefile, build scripts and git's filters.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lab.base import process, scratch
from lab.base.errors import LabError, UsageError
from lab.base.files import plain
from lab.base.notices import progress
from lab.base.paths import Paths
from lab.builds import sandbox, wheels
from lab.builds.kinds.nextest import Nextest
from lab.builds.upstream_tests import MANIFEST, Words, check_place

# Asking git about a large checkout on a slow disk, and Cargo about a large workspace.
ASK_SECONDS = 300.0
# Upstream's runtime has a kernel in it.
BUILD_SECONDS = 4 * 3600.0
# What a build writes into a checkout is no change of it, whether or not git ignores it. But a lock file that is
# in the commit may be changed.
BUILT, LOCK = "target", "Cargo.lock"
# Programs that a checkout's own configuration would have git start. Its filters stay: they decide its content.
NO_PROGRAMS = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null")
# Upstream's package, and the features that its Makefile builds its integration tests with.
PACKAGE, FEATURES = "boxlite", ("krun", "gvproxy")
# The Makefile's goal for the runtime, which has been called by both names.
RUNTIME = re.compile(r"^runtime\\?([:-])debug\s*:", re.MULTILINE)
ARCHIVE, LOG = "tests.tar.zst", "build.log"


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
        inner = [folder / path for sign, path in submodules(folder) if sign not in "-U"]
        trees = {repository: _tree(repository) for repository in (folder, *inner)}
        if all(
            tree == _git(repository, "rev-parse", "HEAD^{tree}").strip() for repository, tree in trees.items()
        ):
            return cls(folder, commit, "")
        return cls(folder, commit, hashlib.sha256("\0".join(trees.values()).encode()).hexdigest())


@dataclass(frozen=True)
class Checkout(Nextest):
    """The checkout in the folder `words.file`, whose archive is a build like any other."""

    form = "checkout:DIR[,suite=NAME][,package=NAME][,features=NAMES]"
    kind = "checkout"

    tree: Tree = field(kw_only=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        words, tree = _read(text)
        sandbox.check()  # That its tests cannot be listed is told now, and not after hours.
        build = cls.read(words, _built(Paths.default(), words, tree, progress))
        name = f"{words.series}-{tree.version}@{build['name'].rpartition('@')[2]}"
        return cls(**{**build, "name": name, "version": tree.version}, tree=tree)

    @classmethod
    def shown(cls, text: str) -> Self:
        words, tree = _read(text)
        if stored(Paths.default(), words, tree):
            return cls.parse(text)
        more: dict[str, Any] = {"suite": words.suite, "words": words, "file": words.file, "tree": tree}
        name, place = f"{words.series}-{tree.version}", words.at or str(words.file)
        return cls(name, tree.version, place=place, filter="", expressions={}, **more)

    @classmethod
    def must_be_made(cls, text: str) -> str:
        words, tree = _read(text)
        is_there = stored(Paths.default(), words, tree) is not None
        return "" if is_there else f"{tree.folder}: {tree.version} was not built for this suite"


def _read(text: str) -> tuple[Words, Tree]:
    """The words and the checkout. Raises UsageError before anything is built."""
    words = Words.parse(Checkout.kind, text)
    tree = Tree.read(words.file)
    if not (words.file / MANIFEST).is_file():
        raise UsageError(
            f"{words.file / MANIFEST}: expected the manifest of a workspace; there is none",
            hint="name the folder of the checkout that has it",
        )
    if words.at is None:  # That it fits no guest is told now, and not after hours.
        check_place(str(words.file), f"{words.file.name}, built in {words.file}")
    return words, tree


def store(paths: Paths) -> Path:
    """The folder of the cache that holds what was built. It can be deleted at any time."""
    return paths.cache / "checkouts"


def stored(paths: Paths, words: Words, tree: Tree) -> Path | None:
    """The archive of tests that was built before; None if none was."""
    archive = _folder(paths, words, tree) / ARCHIVE
    return archive if archive.is_file() else None


def _folder(paths: Paths, words: Words, tree: Tree) -> Path:
    """Where the archive is kept, with the log of its build. The path of the tree is compiled into the tests."""
    parts = [
        str(tree.folder),
        tree.commit,
        tree.changes,
        *_which(words),
        str(words.package),
        str(words.features),
    ]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return store(paths) / f"{tree.version}-{digest}"


def _which(words: Words) -> Sequence[str]:
    """Cargo's options for the tests to build. A filter may choose any test."""
    return ("--tests",) if words.filter else words.suite.cargo


def _built(paths: Paths, words: Words, tree: Tree, say: Callable[[str], None]) -> Path:
    """The archive of tests, which is built if it was not before. `say` gets each line of the build.

    Raises UsageError if the checkout or this host lacks something, before anything is built; LabError if the
    build fails.
    """
    folder = _folder(paths, words, tree)
    if stored(paths, words, tree):
        say(f"{tree.folder}: {tree.version} was built before, in {folder}")
    paths.make(folder.parent)

    def fill(partial: Path) -> None:
        _check_tools(tree)
        runtime = goal(tree.folder)
        nextest = str(words.program(paths))
        cargo = [nextest, "nextest", "archive", *_cargo_words(words), f"--archive-file={partial / ARCHIVE}"]
        _build(
            tree, [*([["make", runtime]] if runtime else []), cargo], partial, folder.with_suffix(".log"), say
        )
        after = Tree.read(tree.folder)
        if after != tree:
            say(f"{tree.folder} was {tree.version} and is {after.version} now: something changed it meanwhile")

    verbs = ("building", "built")
    wheels.fetch_once(folder, str(tree.folder), fill, seconds=BUILD_SECONDS, say=say, verbs=verbs)
    return folder / ARCHIVE


def goal(folder: Path) -> str | None:
    """The goal of a checkout's Makefile that builds boxlite's runtime; None if it has none."""
    for file in (folder / "Makefile", *sorted(folder.glob("make/*.mk"))):
        if file.is_file() and (name := RUNTIME.search(file.read_text(errors="replace"))):
            return f"runtime{name[1]}debug"
    return None


def _check_tools(tree: Tree) -> None:
    """Raise UsageError with all that is missing before anything is built; the build itself names the rest."""
    folder, runtime = tree.folder, goal(tree.folder)
    tools = ["cargo", *(["make"] if runtime else [])]
    lacks = [f"no program {name}" for name in tools if shutil.which(name, path=_path()) is None]
    lacks += [f"the submodule {path} is not checked out" for sign, path in submodules(folder) if sign in "-U"]
    if lacks:
        setup = f"make -C {folder} setup" if runtime else "git submodule update --init --recursive"
        raise UsageError(
            f"{folder} cannot be built here: {'; '.join(lacks)}",
            hint=f"install what is missing; for the checkout itself: {setup}",
        )


def _cargo_words(words: Words) -> list[str]:
    """Cargo's options for the words. Raises UsageError if there is no such package, feature or test."""
    folder, manifest, which = words.file, words.file / MANIFEST, _which(words)
    try:
        printed = _run(folder, ["cargo", "metadata", "--no-deps", "--format-version=1"], ASK_SECONDS)
        document = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
        root = Path(document["workspace_root"])
        packages = {package["name"]: package for package in document["packages"]}
    except (process.CommandFailed, StopIteration, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{manifest}: expected a workspace that Cargo can read: {error}") from error
    if root != folder:
        raise UsageError(f"{manifest}: expected that of a workspace; it belongs to {root}")
    name = words.package or (PACKAGE if PACKAGE in packages else None)
    chosen = [packages[name]] if name in packages else list(packages.values())
    features = {feature for package in chosen for feature in package["features"]}
    tests = {target["name"] for package in chosen for target in package["targets"] if "test" in target["kind"]}
    if words.features is None:
        is_whole = "--no-default-features" not in which
        enabled = [feature for feature in FEATURES if feature in features] if is_whole else []
    else:
        enabled = [feature for feature in words.features.split(",") if feature]
    for what, named, names in (
        ("package", [name] if name else [], set(packages)),
        # One of another package is called PACKAGE/FEATURE.
        ("feature", [feature for feature in enabled if "/" not in feature], features),
        ("test binary", [word.removeprefix("--test=") for word in which if word.startswith("--test=")], tests),
    ):
        if missing := [word for word in named if word not in names]:
            raise UsageError(
                f"{manifest}: there is no {what} {', '.join(missing)}; there are "
                f"{', '.join(sorted(names)) or 'none'}",
                hint="choose others with package=NAME, features=NAMES, suite=NAME or filter=EXPR",
            )
    options = ["-p", name] if name else ["--workspace"]
    return [*options, *([f"--features={','.join(enabled)}"] if enabled else []), *which]


def _build(
    tree: Tree, commands: Sequence[Sequence[str]], into: Path, failed: Path, say: Callable[[str], None]
) -> None:
    """Run the commands that build; what they print is logged. Where they fail, the log is kept in `failed`."""
    with (into / LOG).open("w") as log:

        def on_line(line: str) -> None:
            log.write(f"{line}\n")
            say(plain(line))

        try:
            for command in commands:
                on_line(f"+ {process.display(command)}")
                _run(tree.folder, command, BUILD_SECONDS, on_line)
        except process.CommandFailed as error:
            log.flush()
            shutil.copy(into / LOG, failed)
            setup = f"; make -C {tree.folder} setup installs what it needs" if goal(tree.folder) else ""
            raise LabError(
                f"{tree.folder} could not be built: {error}", hint=f"the whole output is in {failed}{setup}"
            ) from error


def _run(
    folder: Path, command: Sequence[str], seconds: float, on_line: Callable[[str], None] = lambda line: None
) -> str:
    """Run a command in the checkout. Raises CommandFailed."""
    environment = {"PATH": _path(), "CARGO_TERM_COLOR": "never"}
    return process.run(["env", "-C", folder, *command], timeout=seconds, env=environment, on_line=on_line)


def _path() -> str:
    """Where programs are looked for: upstream's Makefile adds the folder in which rustup puts Cargo."""
    return f"{Path('~/.cargo/bin').expanduser()}:{os.environ.get('PATH', os.defpath)}"


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


def submodules(folder: Path) -> list[tuple[str, str]]:
    """A checkout's submodules, also those of its submodules: git's sign for their state, and their path."""
    lines = _git(folder, "submodule", "status", "--recursive").splitlines()
    # "-COMMIT PATH", or " COMMIT PATH (DESCRIPTION)".
    return [(line[0], line[1:].split(" ", 1)[1].rsplit(" (", 1)[0]) for line in lines if " " in line[1:]]


def _git(folder: Path, *words: str, **variables: str) -> str:
    """What git prints. Raises CommandFailed."""
    environment = {"GIT_OPTIONAL_LOCKS": "0", **variables}
    return process.run(["git", *NO_PROGRAMS, "-C", folder, *words], timeout=ASK_SECONDS, env=environment)
