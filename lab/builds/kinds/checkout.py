"""A checkout of upstream's repository: its tests are built in it on this host, archived and kept.

Building runs the checkout's own code: its Makefile, build scripts and git's filters.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from lab.base import process
from lab.base.activity import Task
from lab.base.architecture import get_host_architecture
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import clean_text, hash_file
from lab.base.notices import ANNOUNCED_TASK, announce
from lab.base.paths import Paths
from lab.builds import sandbox, wheels
from lab.builds.kinds.nextest import Nextest, NextestWords, check_place, fetch_nextest
from lab.probes import Facts

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
# The features that upstream's Makefile builds its integration tests with.
FEATURES = "krun,gvproxy"
# The Makefile's goal for the runtime, which has been called by both names.
RUNTIME = re.compile(r"^runtime\\?([:-])debug\s*:", re.MULTILINE)
ARCHIVE = "tests.tar.zst"


class CheckoutWords(NextestWords):
    """The words behind a checkout's folder: those of an archive, and what Cargo builds."""

    package: str = "boxlite"
    features: str | None = None

    def cargo(self) -> tuple[Sequence[str], Sequence[str]]:
        """Cargo's options for the package and its features, and for the tests: with a filter, all of them."""
        tests = ("--tests",) if self.filter else self.definition.cargo
        usual = "" if "--no-default-features" in tests else FEATURES
        features = usual if self.features is None else self.features
        return ["-p", self.package, *([f"--features={features}"] if features else [])], tests


@dataclass(frozen=True)
class Tree:
    """A checkout. `changes` is a digest of what differs from the commit; it is empty if nothing does."""

    folder: Path
    commit: str
    changes: str

    @property
    def version(self) -> str:
        """The commit as `git describe` writes it, and whether there is more in the checkout.

        Without the g, a commit such as 123456789a12 would be a release's version (PEP 440).
        """
        return f"g{self.commit[:12]}" + ("-dirty" if self.changes else "")

    @classmethod
    def read(cls, folder: Path) -> "Tree":
        """The checkout that a folder is in. Raises UsageError unless there is one that has a commit."""
        try:
            top, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD^{commit}").splitlines()
            folder = Path(top)
            inner = submodules(folder)
            changes = [f"{path} is at {commit}" for state, commit, path in inner if state in "+U"]
            for repository in (folder, *(folder / path for state, _, path in inner if state != "-")):
                changes += _changes(repository)
        except process.CommandFailed as error:
            raise UsageError(
                f"{folder}: expected a git checkout with a commit: {' '.join(error.output.split())}",
                hint="clone boxlite's repository with git, and name its folder",
            ) from error
        return cls(folder, commit, hashlib.sha256("\0".join(changes).encode()).hexdigest() if changes else "")


def submodules(folder: Path) -> list[tuple[str, str, str]]:
    """A checkout's submodules, and those of its submodules: git's sign for their state, commit, path."""
    return SUBMODULE.findall(_git(folder, "submodule", "status", "--recursive"))


def _changes(repository: Path) -> Iterator[str]:
    """What a repository has besides its commit, a line for each file; not what a build writes into it."""
    options = ("--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    for entry in _git(repository, "status", *options).split("\0")[:-1]:
        is_new, name = entry.startswith("??"), entry[3:]
        if is_new and BUILT.match(name):
            continue
        file = repository / name
        content = "no file"
        if file.is_symlink():
            content = f"link to {file.readlink()}"
        elif file.is_file():
            content = f"{'program' if os.access(file, os.X_OK) else 'file'} {hash_file(file)}"
        yield f"{file}: {content}"


def _git(folder: Path, *words: str) -> str:
    """What git prints. Raises CommandFailed."""
    command: list[str | Path] = ["git", *NO_PROGRAMS, "-C", folder, *words]
    return process.run_command(command, timeout=ASK_SECONDS, env={"GIT_OPTIONAL_LOCKS": "0"})


@dataclass(frozen=True)
class Checkout(Nextest):
    """A checkout, whose archive is a build like any other."""

    form = "checkout:DIR[,suite=NAME][,package=NAME][,features=NAMES]"
    kind = "checkout"

    tree: Tree = field(kw_only=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        words, tree, folder = _read(text)
        sandbox.check_sandbox()  # That its tests cannot be listed is told now, and not after hours.
        doing = f"building {tree.folder}"
        wheels.fetch_once(
            folder, doing, lambda partial: build_archive(tree, words, partial, folder), ANNOUNCED_TASK
        )
        build = cls.read(words, folder / ARCHIVE, tree=tree)
        name = f"{words.series(cls.kind)}-{tree.version}@{build.name.rpartition('@')[2]}"
        return replace(build, name=name, version=tree.version)

    @classmethod
    def preview(cls, text: str) -> Self:
        words, tree, folder = _read(text)
        if (archive := folder / ARCHIVE).is_file():
            return cls.parse(text)
        name, place = f"{words.series(cls.kind)}-{tree.version}", words.at or str(tree.folder)
        suite = words.definition
        return cls(name, tree.version, words, archive, place, "", {}, suite=suite, tree=tree)

    @property
    def argument(self) -> str:
        return self.words.argument(self.kind, self.tree.folder)

    def fetch(self, paths: Paths, facts: Facts, task: Task) -> dict[str, Path]:
        if facts.arch != (host := get_host_architecture().name):
            raise NotApplicable(
                f"{self.tree.folder} is built on this host, for {host}, and the guest is {facts.arch}"
            )
        return super().fetch(paths, facts, task)


def get_checkout_store(paths: Paths) -> Path:
    """The folder of the cache that holds what was built. It can be deleted at any time."""
    return paths.cache / "checkouts"


def _read(text: str) -> tuple[CheckoutWords, Tree, Path]:
    """The words, the checkout, and the folder that keeps its archive, beside its build's log.

    Raises UsageError before anything is built.
    """
    folder, words = CheckoutWords.split(Checkout.kind, text)
    tree = Tree.read(folder)
    if words.at is None:  # That it fits no guest is told now, and not after hours.
        check_place(str(tree.folder), f"{tree.folder.name}, built in {tree.folder}")
    package, tests = words.cargo()
    # The path of the tree is compiled into the tests.
    parts = [str(tree.folder), tree.commit, tree.changes, *package, *tests]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return words, tree, get_checkout_store(Paths.default()) / f"{tree.version}-{digest}"


def build_archive(tree: Tree, words: CheckoutWords, partial: Path, target: Path) -> None:
    """Build boxlite's runtime and the archive of tests, as upstream's Makefile does.

    The archive is put into `partial`; beside `target`, where that will be, the log has the output. Raises
    UsageError before anything is built if the checkout lacks a submodule, or the package or a feature that is
    asked of it; LabError if the build fails.
    """
    folder, hint = tree.folder, "choose others with package=NAME, features=NAMES, suite=NAME or filter=EXPR"
    if missing := [path for state, _, path in submodules(folder) if state == "-"]:
        raise UsageError(
            f"{folder} cannot be built: these submodules are not checked out: {', '.join(missing)}",
            hint=process.quote_command(["git", "-C", folder, "submodule", "update", "--init", "--recursive"]),
        )
    package, tests = words.cargo()
    nextest = fetch_nextest(Paths.default())
    try:
        run_in_tree(folder, ["cargo", "tree", "--quiet", "--depth=0", *package], ASK_SECONDS)
    except process.CommandFailed as error:
        raise UsageError(f"{folder}: Cargo cannot build the tests in it: {error}", hint=hint) from error
    commands: list[Sequence[str | Path]] = [
        [nextest, "nextest", "archive", *package, *tests, f"--archive-file={partial / ARCHIVE}"]
    ]
    for file in (folder / "Makefile", *sorted(folder.glob("make/*.mk"))):
        if file.is_file() and (goal := RUNTIME.search(file.read_text(errors="replace"))):
            commands.insert(0, ["make", f"runtime{goal[1]}debug"])
            hint = f"make -C {folder} setup installs what it needs"
            break
    log = target.with_suffix(".log")
    with log.open("w") as stream:

        def on_line(line: str) -> None:
            stream.write(f"{line}\n")
            announce(clean_text(line))

        try:
            for command in commands:
                on_line(f"+ {process.quote_command(command)}")
                run_in_tree(folder, command, BUILD_SECONDS, on_line)
        except process.CommandFailed as error:
            raise LabError(
                f"{folder} could not be built: {error}", hint=f"the whole output is in {log}; {hint}"
            ) from error
    tree_now = Tree.read(folder)
    if tree_now != tree:
        announce(f"{folder} was {tree.version} and is {tree_now.version} now: something changed it meanwhile")


def run_in_tree(
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
    return process.run_command(
        ["env", "-C", folder, *command], timeout=seconds, env=environment, on_line=on_line
    )
