"""A checkout of upstream's repository: its tests are built in it on this host, archived and kept.

Building runs the checkout's own code: its Makefile, build scripts and git's filters.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lab.base import process
from lab.base.errors import LabError, UsageError
from lab.base.files import plain, sha256
from lab.base.notices import progress
from lab.base.paths import Paths
from lab.builds import sandbox, wheels
from lab.builds.kinds.nextest import Nextest
from lab.builds.upstream_tests import Words, check_place

# Asking git about a large checkout on a slow disk, and Cargo about a large workspace.
ASK_SECONDS = 300.0
# Upstream's runtime has a kernel in it.
BUILD_SECONDS = 4 * 3600.0
# What a build writes into a checkout is no change of it, whether or not git ignores it, unless it is committed.
BUILT = re.compile(r"target/|Cargo\.lock$")
# "-COMMIT PATH", or " COMMIT PATH (DESCRIPTION)".
SUBMODULE = re.compile(r"^([ +U-])([0-9a-f]+) (.*?)(?: \([^()]*\))?$", re.MULTILINE)
# Programs that a checkout's own configuration would have git start. Its filters stay: they decide its content.
NO_PROGRAMS = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null")
# Upstream's package, and the features that its Makefile builds its integration tests with.
PACKAGE, FEATURES = "boxlite", "krun,gvproxy"
# The Makefile's goal for the runtime, which has been called by both names.
RUNTIME = re.compile(r"^runtime\\?([:-])debug\s*:", re.MULTILINE)
ARCHIVE = "tests.tar.zst"


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
        """Ask git about a folder. Raises UsageError unless it is the top of a checkout that has a commit."""
        try:
            commit = _git(folder, "rev-parse", "--verify", "HEAD^{commit}").strip()
        except process.CommandFailed as error:
            raise UsageError(
                f"{folder}: expected a git checkout with a commit: {' '.join(error.output.split())}",
                hint="clone boxlite's repository with git, and name its folder",
            ) from error
        if folder != (top := Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))):
            message = f"{folder}: expected the top folder of a checkout, which is {top}"
            raise UsageError(message, hint="name that one")
        inner = submodules(folder)
        changes = [f"{path} is at {commit}" for state, commit, path in inner if state in "+U"]
        for repository in (folder, *(folder / path for state, _, path in inner if state in " +")):
            changes += _changes(repository)
        return cls(folder, commit, hashlib.sha256("\0".join(changes).encode()).hexdigest() if changes else "")


def submodules(folder: Path) -> list[tuple[str, str, str]]:
    """A checkout's submodules, and those of its submodules: git's sign for their state, commit, path."""
    return SUBMODULE.findall(_git(folder, "submodule", "status", "--recursive"))


def _changes(repository: Path) -> Iterator[str]:
    """What a repository has besides its commit, a line for each file; not what a build writes into it."""
    how = ("--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    for entry in _git(repository, "status", *how).split("\0")[:-1]:
        is_new, name = entry.startswith("??"), entry[3:]
        if is_new and BUILT.match(name):
            continue
        file = repository / name
        content = "no file"
        if file.is_symlink():
            content = f"link to {file.readlink()}"
        elif file.is_file():
            content = f"{'program' if os.access(file, os.X_OK) else 'file'} {sha256(file)}"
        yield f"{file}: {content}"


def _git(folder: Path, *words: str) -> str:
    """What git prints. Raises CommandFailed."""
    command: list[str | Path] = ["git", *NO_PROGRAMS, "-C", folder, *words]
    return process.run(command, timeout=ASK_SECONDS, env={"GIT_OPTIONAL_LOCKS": "0"})


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
    def preview(cls, text: str) -> Self:
        words, tree = _read(text)
        if stored(Paths.default(), words, tree):
            return cls.parse(text)
        more: dict[str, Any] = {"suite": words.suite, "words": words, "file": words.file, "tree": tree}
        name, place = f"{words.series}-{tree.version}", words.at or str(words.file)
        return cls(name, tree.version, place=place, filter="", expressions={}, **more)


def _read(text: str) -> tuple[Words, Tree]:
    """The words and the checkout. Raises UsageError before anything is built."""
    words = Words.parse(Checkout.kind, text)
    tree = Tree.read(words.file)
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
    """Where the archive is kept, beside its build's log. The path of the tree is compiled into the tests."""
    package, tests = _choice(words)
    parts = [str(tree.folder), tree.commit, tree.changes, *package, *tests]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return store(paths) / f"{tree.version}-{digest}"


def _choice(words: Words) -> tuple[Sequence[str], Sequence[str]]:
    """Cargo's options for the package with its features, and for the tests. A filter may choose any test."""
    tests = ("--tests",) if words.filter else words.suite.cargo
    usual = "" if "--no-default-features" in tests else FEATURES
    features = usual if words.features is None else words.features
    package = ["-p", words.package or PACKAGE, *([f"--features={features}"] if features else [])]
    return package, tests


def _built(paths: Paths, words: Words, tree: Tree, say: Callable[[str], None]) -> Path:
    """The archive of tests, which is built if it was not before. `say` gets each line of the build.

    Raises as `_build` does.
    """
    folder = _folder(paths, words, tree)
    if stored(paths, words, tree):
        say(f"{tree.folder}: {tree.version} was built before, in {folder}")
    paths.make(folder.parent)

    def fill(partial: Path) -> None:
        _build(tree, words, words.program(paths), partial / ARCHIVE, folder.with_suffix(".log"), say)

    verbs = ("building", "built")
    wheels.fetch_once(folder, str(tree.folder), fill, seconds=BUILD_SECONDS, say=say, verbs=verbs)
    return folder / ARCHIVE


def _build(
    tree: Tree, words: Words, nextest: Path, archive: Path, log: Path, say: Callable[[str], None]
) -> None:
    """Build boxlite's runtime and the archive of tests, as upstream's Makefile does; `log` gets the output.

    Raises UsageError before anything is built if the checkout lacks a submodule, or the package or a feature
    that is asked of it; LabError if the build fails.
    """
    folder, hint = tree.folder, "choose others with package=NAME, features=NAMES, suite=NAME or filter=EXPR"
    if missing := [path for state, _, path in submodules(folder) if state == "-"]:
        raise UsageError(
            f"{folder} cannot be built: these submodules are not checked out: {', '.join(missing)}",
            hint=process.display(["git", "-C", folder, "submodule", "update", "--init", "--recursive"]),
        )
    package, tests = _choice(words)
    try:
        _run(folder, ["cargo", "tree", "--quiet", "--depth=0", *package], ASK_SECONDS)
    except process.CommandFailed as error:
        raise UsageError(f"{folder}: Cargo cannot build the tests in it: {error}", hint=hint) from error
    runtime = goal(folder)
    commands: list[Sequence[str | Path]] = [["make", runtime]] if runtime else []
    commands.append([nextest, "nextest", "archive", *package, *tests, f"--archive-file={archive}"])
    with log.open("w") as file:

        def on_line(line: str) -> None:
            file.write(f"{line}\n")
            say(plain(line))

        try:
            for command in commands:
                on_line(f"+ {process.display(command)}")
                _run(folder, command, BUILD_SECONDS, on_line)
        except process.CommandFailed as error:
            setup = f"; make -C {folder} setup installs what it needs" if runtime else f"; {hint}"
            raise LabError(
                f"{folder} could not be built: {error}", hint=f"the whole output is in {log}{setup}"
            ) from error
    after = Tree.read(folder)
    if after != tree:
        say(f"{folder} was {tree.version} and is {after.version} now: something changed it meanwhile")


def goal(folder: Path) -> str | None:
    """The goal of a checkout's Makefile that builds boxlite's runtime; None if it has none."""
    for file in (folder / "Makefile", *sorted(folder.glob("make/*.mk"))):
        if file.is_file() and (name := RUNTIME.search(file.read_text(errors="replace"))):
            return f"runtime{name[1]}debug"
    return None


def _run(
    folder: Path,
    command: Sequence[str | Path],
    seconds: float,
    on_line: Callable[[str], None] = lambda line: None,
) -> str:
    """Run a command in the checkout. Raises CommandFailed.

    Programs are looked for where upstream's Makefile does, which adds the folder in which rustup puts Cargo.
    """
    path = f"{Path('~/.cargo/bin').expanduser()}:{os.environ.get('PATH', os.defpath)}"
    environment = {"PATH": path, "CARGO_TERM_COLOR": "never"}
    return process.run(["env", "-C", folder, *command], timeout=seconds, env=environment, on_line=on_line)
