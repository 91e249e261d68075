"""Builds of a checkout: what is built, when, what is kept of it, and what is refused before anything is."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from packaging.version import InvalidVersion, Version

from lab import builds
from lab.base import notices
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import Build
from lab.builds.kinds import checkout
from lab.builds.kinds.checkout import Tree
from tests.builders import rust
from tests.builders.facts import executable, facts

PLACE = "/opt/boxlite"
# As upstream's: `make` reads the colon of a goal's name as its end unless it is escaped.
MAKEFILE = "runtime\\:debug:\n\t@echo building the runtime\n\t@test ! -e fails\n"
FEATURES = "[features]\nkrun = []\ngvproxy = []\nextra = []\n"


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message=all")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The checkout of a small crate, whose path is another one in each test."""
    folder = tmp_path / "crate"
    folder.mkdir()
    rust.write(folder, {"jailer": rust.TESTS, "detach": "#[test] fn some() {}"})
    with (folder / "src" / "boxlite" / "Cargo.toml").open("a") as manifest:
        manifest.write(FEATURES)
    commit(folder)
    return folder


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(notices, "listener", told.append)
    return told


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and whatever builds something fails."""

    def fails(*_: object) -> NoReturn:
        raise AssertionError("something is built")

    return lambda: monkeypatch.setattr(checkout, "build_archive", fails)


def resolve(tree: Path, words: str = "") -> Build:
    return builds.resolve_build(f"checkout:{tree},at={PLACE}{words}")


def test_it_is_built_once_for_each_commit_and_shown_and_logged(
    tree: Path, rust_lab: Paths, lines: list[str], no_build: Callable[[], None]
) -> None:
    # No commit is taken for a release.
    with pytest.raises(InvalidVersion):
        Version(Tree(Path(), "123456789a12" + "0" * 28, "").version)
    build = resolve(tree)
    version = f"g{Tree.read(tree).commit[:12]}"
    assert build.version == version
    assert build.name.startswith(f"checkout-{version}@")
    assert build.suite.name == "upstream-jailer"
    assert build.argument == f"checkout:{tree},at={PLACE}"
    assert Tree.read(tree / "src") == Tree.read(tree)
    [command] = [line for line in lines if line.startswith("+ ")]
    assert " nextest archive -p boxlite --features=krun,gvproxy --test=jailer --archive-file=" in command
    assert any("Compiling boxlite v0.10.8" in line for line in lines)
    [kept] = [
        folder for folder in checkout.get_checkout_store(rust_lab).glob(f"{version}-*") if folder.is_dir()
    ]
    assert lines == [f"building {tree}", *kept.with_suffix(".log").read_text().splitlines()]
    # git ignores neither here, and they are no changes of the checkout all the same.
    assert (tree / "target").exists() and (tree / "Cargo.lock").exists()
    with pytest.raises(NotApplicable, match=rf"{tree} is built on this host, for .*, and the guest is riscv64"):
        build.fetch(rust_lab, facts(arch="riscv64"), UNWATCHED)
    no_build()
    assert resolve(tree) == build == builds.resolve_build(build.argument, only_shown=True)
    with pytest.raises(UsageError, match="no version that a release could be older than"):
        builds.find_previous_release(build)
    # A plan that is shown builds nothing.
    (tree / "more").touch()
    [listed] = builds.resolve_builds([build.argument], only_shown=True)
    assert (listed.name, listed.argument) == (f"checkout-{version}-dirty", build.argument)


def test_changes_and_words_make_another_build(tree: Path, rust_lab: Paths, lines: list[str]) -> None:
    build = resolve(tree)
    source = tree / "src" / "boxlite" / "tests" / "jailer.rs"
    source.write_text(f"{rust.TESTS}\n#[test] fn new() {{}}\n")
    changed = resolve(tree)
    assert changed.version == f"{build.version}-dirty"
    assert changed.name != build.name
    assert "new" in changed.suite.tests
    assert resolve(tree) == changed
    assert resolve(tree, ",filter=binary(jailer)").suite.name == "upstream-jailer"
    resolve(tree, ",filter=binary(jailer),package=boxlite,features=extra")
    resolve(tree, ",features=")
    commands = [line.partition(" archive ")[2].rpartition(" --")[0] for line in lines if line.startswith("+ ")]
    assert commands[1:] == [
        "-p boxlite --features=krun,gvproxy --test=jailer",
        # A filter may choose any test.
        "-p boxlite --features=krun,gvproxy --tests",
        "-p boxlite --features=extra --tests",
        "-p boxlite --test=jailer",
    ]


def test_make_builds_the_runtime_and_a_failure_is_logged(tree: Path, lines: list[str], rust_lab: Paths) -> None:
    (tree / "make").mkdir()
    (tree / "Makefile").write_text("include make/build.mk\n")
    (tree / "make" / "build.mk").write_text(f"{MAKEFILE}\t@echo >made\n")
    commit(tree)
    version = Tree.read(tree).version
    resolve(tree)
    assert lines[1:3] == ["+ make runtime:debug", "building the runtime"]
    assert lines[-1] == f"{tree} was {version} and is {version}-dirty now: something changed it meanwhile"
    (tree / "fails").touch()
    with pytest.raises(LabError, match=f"{tree} could not be built: .*make runtime:debug.*\n") as failed:
        resolve(tree)
    assert failed.value.exit_status == 3
    log = Path(str(failed.value.hint).partition(" is in ")[2].partition(";")[0])
    assert log.read_text().startswith("+ make runtime:debug\nbuilding the runtime\n")
    assert not list(checkout.get_checkout_store(rust_lab).glob(".partial-*"))


def test_what_git_ignores_is_no_change_and_whatever_else_differs_is_one(tree: Path) -> None:
    (tree / "target").mkdir()
    (tree / "target" / "tests").touch()
    (tree / "Cargo.lock").write_text("1")
    assert Tree.read(tree).changes == ""
    seen = {""}
    for change in (
        lambda: (tree / "Cargo.toml").chmod(0o755),
        lambda: (tree / "Cargo.toml").write_bytes(b"\xff\0"),
        lambda: (tree / "Cargo.toml").unlink(),
        lambda: (tree / "Cargo.toml").symlink_to("a"),
        lambda: (tree / "new").write_text("text\n" * 50_000),
        lambda: (tree / "new").write_text("other\n" + "text\n" * 49_999),
    ):
        change()
        changes = Tree.read(tree).changes
        assert changes not in seen
        seen.add(changes)
    # The index is nothing that is built.
    git(tree, "add", "new")
    assert Tree.read(tree).changes in seen
    # git may ignore what is built; the file that says so is a change itself.
    (tree / ".gitignore").write_text("target/\nCargo.lock\n")
    ignoring = Tree.read(tree).changes
    assert ignoring not in seen
    (tree / "target" / "more").touch()
    (tree / "Cargo.lock").write_text("3")
    assert Tree.read(tree).changes == ignoring
    commit(tree)
    assert Tree.read(tree).changes == ""
    (tree / "Cargo.lock").write_text("2")
    assert Tree.read(tree).changes


def test_a_submodule_counts_and_has_to_be_checked_out(tree: Path, tmp_path: Path, rust_lab: Paths) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "file").touch()
    commit(inner)
    git(tree, "submodule", "--quiet", "add", str(inner), "vendor/libkrun")
    commit(tree)
    vendor = tree / "vendor" / "libkrun"
    assert Tree.read(tree).changes == ""
    (vendor / "file").write_text("changed")
    changed = Tree.read(tree).changes
    commit(vendor)
    assert len({"", changed, Tree.read(tree).changes}) == 3
    clone = tmp_path / "a clone"
    git(tmp_path, "clone", "--quiet", str(tree), str(clone))
    with pytest.raises(UsageError, match=r"not checked out: vendor/libkrun\n.*submodule update"):
        resolve(clone)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("TMP/none", "none: no such file or folder"),
        ("TMP/plain", "TMP/plain: expected a git checkout with a commit: fatal: not a git repository"),
        ("TREE", "built in TREE: .*\n.*at=/opt/boxlite"),
        ("TREE,at=/opt/boxlite,suite=other", "suite: no suite .* 'other'"),
        ("TREE,at=/opt/boxlite,package=a,package=b", "an option is given twice"),
        # In Cargo's own words.
        ("TREE,at=/opt/boxlite,features=no", "TREE: Cargo cannot build .*\n(.*\n)*.*feature.* no\\b"),
        ("TMP/bare,at=/opt/boxlite", "TMP/bare: Cargo cannot build .*\n(.*\n)*.*Cargo.toml"),
    ],
)
def test_what_cannot_be_built_is_wrong_usage(
    tree: Path, tmp_path: Path, rust_lab: Paths, argument: str, expected: str
) -> None:
    for name in ("plain", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "bare" / "file").touch()
    commit(tmp_path / "bare")
    where = {"TREE": str(tree), "TMP": str(tmp_path)}
    for name, folder in where.items():
        argument, expected = argument.replace(name, folder), expected.replace(name, folder)
    with pytest.raises(UsageError, match=expected):
        builds.resolve_build(f"checkout:{argument}")


def test_the_path_of_upstreams_makefile_is_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / ".cargo/bin/only-here", "#!/bin/sh\necho here\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkout.run_in_tree(tmp_path, ["only-here"], 10) == "here\n"
