"""A git checkout on this host: its commit, what it changes, and its submodules."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.base import process, scratch
from lab.base.errors import UsageError

# Asking git about a large checkout on a slow disk.
SECONDS = 120.0
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
    return process.run(["git", *NO_PROGRAMS, "-C", folder, *words], timeout=SECONDS, env=environment)
