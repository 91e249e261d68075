"""Builds of a checkout: what is built, when, what is kept of it, and what is refused before anything is."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from lab import builds
from lab.base import notices
from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths
from lab.builds import Build
from lab.builds.kinds import checkout
from lab.builds.kinds.checkout import Tree
from tests.builders import rust

PLACE = "/opt/boxlite"
# As upstream's: `make` reads the colon of a goal's name as its end unless it is escaped.
MAKEFILE = "runtime\\:debug:\n\t@echo building the runtime\n\t@test ! -e fails\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paths]:
    """A lab of its own that has cargo-nextest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(tmp_path_factory.mktemp("lab")))
        yield Paths.default()


@pytest.fixture(scope="module")
def tools(home: Paths) -> None:
    rust.archiver(home)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=all")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The checkout of a small crate, whose path is another one in each test."""
    folder = tmp_path / "crate"
    folder.mkdir()
    rust.write(folder, {"jailer": rust.TESTS, "detach": "#[test] fn some() {}"})
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    notices.show_progress(lines.append)
    yield lines
    notices.show_progress(lambda _line: None)


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and whatever builds something fails."""

    def fails(*_: object) -> NoReturn:
        raise AssertionError("something is built")

    return lambda: monkeypatch.setattr(checkout, "_build", fails)


def resolve(tree: Path, words: str = "") -> Build:
    return builds.resolve(f"checkout:{tree},at={PLACE}{words}")


@pytest.mark.usefixtures("tools")
def test_it_is_built_once_for_each_commit_and_shown_and_logged(
    tree: Path, home: Paths, said: list[str], no_build: Callable[[], None]
) -> None:
    build = resolve(tree)
    version = Tree.read(tree).commit[:12]
    assert build.version == version
    assert build.name.startswith(f"checkout-{version}@")
    assert build.suite.name == "upstream-jailer"
    assert build.argument == f"checkout:{tree},at={PLACE}"
    [command] = [line for line in said if line.startswith("+ ")]
    assert " nextest archive -p boxlite --test=jailer --archive-file=" in command
    assert any("Compiling boxlite v0.10.8" in line for line in said)
    [kept] = [folder for folder in checkout.store(home).glob(f"{version}-*") if folder.is_dir()]
    assert said == [f"building {tree}", *(kept / "build.log").read_text().splitlines()]
    # git ignores neither here, and they are no changes of the checkout all the same.
    assert (tree / "target").exists() and (tree / "Cargo.lock").exists()
    no_build()
    assert resolve(tree) == build
    assert said[-1] == f"{tree}: {version} was built before, in {kept}"
    with pytest.raises(UsageError, match="no version that a release could be older than"):
        builds.previous(build)


@pytest.mark.usefixtures("tools")
def test_a_changed_checkout_is_another_build_and_says_so(tree: Path) -> None:
    build = resolve(tree)
    source = tree / "src" / "boxlite" / "tests" / "jailer.rs"
    source.write_text(f"{rust.TESTS}\n#[test] fn new() {{}}\n")
    changed = resolve(tree)
    assert changed.version == f"{build.version}-dirty"
    assert changed.name != build.name
    assert "new" in changed.suite.tests
    assert resolve(tree) == changed
    (tree / "src" / "boxlite" / "more").write_text("a file that git does not know")
    assert Tree.read(tree).changes not in ("", changed.tree.changes)  # type: ignore[attr-defined]
    commit(tree)
    assert not Tree.read(tree).version.endswith("-dirty")


@pytest.mark.usefixtures("tools")
def test_words_choose_the_suite_and_what_is_built(tree: Path, said: list[str]) -> None:
    manifest = tree / "src" / "boxlite" / "Cargo.toml"
    manifest.write_text(f"{manifest.read_text()}[features]\nkrun = []\nextra = []\n")
    commit(tree)
    build = resolve(tree, ",filter=binary(jailer)")
    assert build.suite.name == "upstream-jailer"
    assert resolve(tree, ",filter=binary(jailer),package=boxlite,features=extra").name.startswith("checkout-")
    commands = [line.partition(" archive ")[2].rpartition(" --")[0] for line in said if line.startswith("+ ")]
    assert commands == [
        # Upstream's features, as far as the package has them; a filter may choose any test.
        "-p boxlite --features=krun --tests",
        "-p boxlite --features=extra --tests",
    ]


@pytest.mark.usefixtures("tools")
def test_the_makefile_builds_the_runtime_first_and_a_failure_keeps_the_log(
    tree: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, home: Paths
) -> None:
    (tree / "make").mkdir()
    (tree / "Makefile").write_text("include make/build.mk\n")
    (tree / "make" / "build.mk").write_text(MAKEFILE)
    commit(tree)
    resolve(tree)
    assert said[1:3] == ["+ make runtime:debug", "building the runtime"]
    (tree / "make" / "build.mk").write_text(f"{MAKEFILE}\t@echo >made\n")
    commit(tree)
    version = Tree.read(tree).version
    resolve(tree)
    assert said[-1] == f"{tree} was {version} and is {version}-dirty now: something changed it meanwhile"
    (tree / "fails").touch()
    with pytest.raises(LabError, match=f"{tree} could not be built: .*make runtime:debug.*\n") as failed:
        resolve(tree)
    assert failed.value.exit_status == 3
    kept = Path(str(failed.value.hint).partition(" is in ")[2].partition(";")[0])
    assert kept.read_text().startswith("+ make runtime:debug\nbuilding the runtime\n")
    assert not list(checkout.store(home).glob(".partial-*"))


@pytest.mark.usefixtures("tools")
def test_a_plan_that_is_shown_builds_nothing(tree: Path, home: Paths, no_build: Callable[[], None]) -> None:
    wanted = f"checkout:{tree},at={PLACE}"
    built = builds.resolve(wanted)
    assert builds.shown(wanted) == built
    assert builds.stored(home, wanted) is None
    no_build()
    (tree / "more").touch()
    [shown] = builds.resolve_all([wanted], only_shown=True)
    assert (shown.name, shown.argument) == (f"checkout-{built.version}-dirty", wanted)
    with pytest.raises(UsageError, match=f"--offline makes no build: {tree}: .*-dirty was not built"):
        builds.stored(home, wanted)


def test_what_git_ignores_is_no_change_and_whatever_else_differs_is_one(tree: Path) -> None:
    clean = Tree.read(tree)
    assert clean.changes == ""
    found = set()
    for change in (
        lambda: (tree / "Cargo.lock").write_text("1"),
        lambda: (tree / "target").mkdir(),
        lambda: (tree / "target" / "tests").touch(),
    ):
        change()
        found.add(Tree.read(tree).changes)
    assert found == {""}
    in_index = subprocess.run(["git", "-C", tree, "diff", "--cached"], capture_output=True, check=True)
    assert in_index.stdout == b""
    for change in (
        lambda: (tree / "Cargo.toml").chmod(0o755),
        lambda: (tree / "Cargo.toml").write_bytes(b"\xff\0"),
        lambda: (tree / "Cargo.toml").unlink(),
        lambda: (tree / "new").write_text("text\n" * 50_000),
        lambda: (tree / "new").write_text("other\n" + "text\n" * 49_999),
        lambda: git(tree, "add", "new"),
    ):
        change()
        found.add(Tree.read(tree).changes)
    # git may ignore what is built; the file that says so is a change itself.
    (tree / ".gitignore").write_text("target/\nCargo.lock\n")
    ignoring = Tree.read(tree).changes
    (tree / "target" / "more").touch()
    (tree / "Cargo.lock").write_text("3")
    assert Tree.read(tree).changes == ignoring
    # That the last one was added to the index changes nothing in the checkout.
    assert len(found) == 6
    git(tree, "add", "--all", "--force")
    git(tree, "commit", "--quiet", "--message=all")
    (tree / "Cargo.lock").write_text("2")
    assert Tree.read(tree).changes


@pytest.mark.usefixtures("home", "sandboxed")
def test_everything_that_is_missing_is_told_at_once(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_build: Callable[[], None]
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "file").touch()
    commit(inner)
    git(tree, "submodule", "--quiet", "add", str(inner), "vendor/libkrun")
    (tree / "Makefile").write_text(MAKEFILE)
    commit(tree)
    assert [sign for sign, _ in checkout.submodules(tree)] == [" "]
    (tree / "vendor" / "libkrun" / "file").write_text("changed")
    assert Tree.read(tree).version.endswith("-dirty")
    clone = tmp_path / "a clone"
    git(tmp_path, "clone", "--quiet", str(tree), str(clone))
    no_build()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "env", "setpriv"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setattr(checkout, "_path", lambda: str(programs))
    with pytest.raises(UsageError) as missing:
        resolve(clone)
    text = str(missing.value)
    for lacks in ("no program cargo; ", "no program make; "):
        assert lacks in text
    assert "the submodule vendor/libkrun is not checked out" in text
    assert f"make -C {clone} setup" in text


@pytest.mark.usefixtures("home", "no_build")
def test_what_is_no_checkout_is_refused(tree: Path, tmp_path: Path) -> None:
    plain, empty, bare = (tmp_path / name for name in ("plain", "empty", "bare"))
    for folder in (plain, empty, bare):
        folder.mkdir()
    git(empty, "init", "--quiet")
    git(bare, "init", "--quiet")
    (bare / "file").touch()
    commit(bare)
    for wanted, said in {
        f"checkout:{tmp_path}/none": "none: no such folder",
        f"checkout:{plain}": f"{plain}: expected a git checkout with a commit: fatal: not a git repository",
        f"checkout:{empty}": f"{empty}: expected a git checkout with a commit: fatal: ",
        f"checkout:{bare}": f"{bare}/Cargo.toml: expected the manifest of a workspace; there is none",
        f"checkout:{tree}": f"built in {tree}: .*\n.*at=/opt/boxlite",
        f"checkout:{tree},at={PLACE},suite=other": "suite=other: no suite",
        f"checkout:{tree},at={PLACE},package=a,package=b": "a word is given twice",
    }.items():
        with pytest.raises(UsageError, match=said):
            builds.resolve(wanted)


@pytest.mark.usefixtures("tools")
def test_what_the_workspace_does_not_have_is_refused(tree: Path, no_build: Callable[[], None]) -> None:
    no_build()
    for words, said in {
        ",package=other": "there is no package other; there are boxlite",
        ",features=krun": "there is no feature krun; there are none",
        ",suite=zygote": "there is no test binary zygote_integration; there are detach, jailer\n",
    }.items():
        with pytest.raises(UsageError, match=f"{tree}/Cargo.toml: {said}"):
            resolve(tree, words)
    with pytest.raises(UsageError, match=f"{tree}/src/boxlite/Cargo.toml: .*; it belongs to {tree}"):
        resolve(tree / "src" / "boxlite")
    (tree / "Cargo.toml").write_text("[workspace")
    with pytest.raises(UsageError, match=f"{tree}/Cargo.toml: expected a workspace that Cargo can read"):
        resolve(tree)


def test_the_path_of_upstreams_makefile_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert checkout._path().split(os.pathsep)[0] == "/home/someone/.cargo/bin"
