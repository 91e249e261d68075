"""Words of `--build` for a release, and wheels of this host."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version

from lab import builds
from lab.base.errors import NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds.wheel import Wheel, choose
from tests.builders.facts import facts
from tests.builders.packages import make_wheel

RELEASES = ["0.9.5", "0.9.7", "0.10.0", "0.10.8", "0.10.10"]

Known = Callable[..., None]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """Says which releases the package index has."""

    def says(*releases: str) -> None:
        monkeypatch.setattr(wheels, "releases", lambda: list(map(Version, releases)))

    return says


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A folder with one wheel for each of two Pythons."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for tag in ("cp311", "cp313"):
        make_wheel(folder, "boxlite", "0.11.0", tags=f"{tag}-{tag}-manylinux_2_28_x86_64")
    return folder


@pytest.mark.parametrize(
    ("word", "version"),
    [
        ("0.10.x", "0.10.10"),
        ("v0.10.*", "0.10.10"),
        ("0.9.x", "0.9.7"),
        ("0.x", "0.10.10"),
        ("previous", "0.10.8"),
        ("wheel:0.9.x", "0.9.7"),
    ],
)
def test_a_word_is_resolved_to_a_version(known: Known, word: str, version: str) -> None:
    known(*RELEASES)
    build = builds.resolve(word)
    assert build == Wheel(version, version)
    assert builds.argument(build.record()) == version


@pytest.mark.parametrize(
    ("word", "releases", "problem", "hint"),
    [
        ("0.12.x", RELEASES, "PyPI has no release of the series 0.12", f"there are {', '.join(RELEASES)}"),
        ("0.1.x", RELEASES, "PyPI has no release of the series 0.1", f"there are {', '.join(RELEASES)}"),
        ("previous", ["0.9.5"], "PyPI has no release before the newest", "there are 0.9.5"),
        ("previous", [], "PyPI has no release before the newest", "name a wheel instead"),
    ],
)
def test_a_word_for_no_release_is_wrong_usage(
    known: Known, word: str, releases: list[str], problem: str, hint: str
) -> None:
    known(*releases)
    with pytest.raises(UsageError) as error:
        builds.resolve(word)
    assert error.value.args[0] == f"--build {word}: {problem}"
    assert error.value.hint == hint


def test_without_the_index_a_word_stands_for_a_release_of_the_cache(paths: Paths) -> None:
    for version in ("0.9.7", "0.10.0", "0.10.8", "0.11.0rc1"):
        folder = paths.make(wheels.store(paths) / f"boxlite-{version}-0-cp313")
        make_wheel(folder, "boxlite", version)
    found = [builds.stored(paths, word) for word in (None, "0.10.x", "previous", "wheel:0.9.x")]
    assert [build and build.name for build in found] == ["0.10.8", "0.10.8", "0.10.0", "0.9.7"]
    assert builds.stored(paths, "0.10.0") is None
    with pytest.raises(UsageError, match=r"--build 0\.11\.x: the cache has no release of the series 0\.11"):
        builds.stored(paths, "0.11.x")


def test_a_version_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Known) -> None:
    known(*RELEASES)
    monkeypatch.chdir(tmp_path)
    for name in ("0.10.8", "0.10.x", "previous"):
        Path(name).mkdir()
    assert [builds.resolve(each).version for each in ("0.10.8", "0.10.x", "previous")] == [
        "0.10.8",
        "0.10.10",
        "0.10.8",
    ]
    with pytest.raises(UsageError, match="--build previous: a folder without wheels"):
        builds.resolve("./previous")


def test_each_guest_gets_its_wheel(dist: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "download", lambda *_: [])
    build = builds.resolve(str(dist))
    assert (build.version, build.argument, build.source) == ("0.11.0", str(dist), str(dist))
    for python, tag in (("3.11", "cp311"), ("3.13", "cp313")):
        name = f"boxlite-0.11.0-{tag}-{tag}-manylinux_2_28_x86_64.whl"
        assert build.fetch(paths, facts(python=python), lambda _: None) == {name: dist / name}
    with pytest.raises(NotApplicable) as reason:
        build.fetch(paths, facts(python="3.12"), lambda _: None)
    assert str(reason.value) == (
        f"{dist} has no wheel for Python 3.12, only boxlite-0.11.0-cp311-cp311-manylinux_2_28_x86_64.whl, "
        "boxlite-0.11.0-cp313-cp313-manylinux_2_28_x86_64.whl"
    )


def test_of_several_wheels_for_a_python_that_one_counts_which_pip_prefers(dist: Path) -> None:
    newer = make_wheel(dist, "boxlite", "0.11.0", tags="cp313-cp313-manylinux_2_34_x86_64")
    make_wheel(dist, "boxlite", "0.11.0", tags="cp310-abi3-manylinux_2_17_x86_64")
    make_wheel(dist, "boxlite", "0.11.0", tags="cp313-cp313-manylinux_2_28_aarch64")
    assert choose(dist, facts(python="3.13")) == newer
    assert choose(dist, facts(python="3.12")).name == "boxlite-0.11.0-cp310-abi3-manylinux_2_17_x86_64.whl"


def test_a_folder_is_named_by_version_and_content(dist: Path, tmp_path: Path) -> None:
    build = builds.resolve(str(dist))
    assert build.name.startswith("0.11.0@")
    assert builds.resolve(str(shutil.copytree(dist, tmp_path / "copy"))).name == build.name
    (tmp_path / "copy" / "notes.txt").write_text("beside the wheels")
    assert builds.resolve(str(tmp_path / "copy")).name == build.name
    (wheel := next(dist.glob("*cp313*"))).unlink()
    assert builds.resolve(str(dist)).name not in (
        build.name,
        builds.resolve(str(tmp_path / "copy" / wheel.name)).name,
    )
    with pytest.raises(UsageError, match="changed since"):
        builds.resolve_recorded([build.record()])


def test_a_folder_with_wheels_of_several_versions_is_wrong_usage_and_lists_them(dist: Path) -> None:
    make_wheel(dist, "boxlite", "0.10.8")
    with pytest.raises(UsageError) as error:
        builds.resolve(str(dist))
    assert error.value.args[0] == (
        f"--build {dist}: wheels of several versions: 0.10.8 (boxlite-0.10.8-py3-none-any.whl), "
        "0.11.0 (boxlite-0.11.0-cp311-cp311-manylinux_2_28_x86_64.whl), "
        "0.11.0 (boxlite-0.11.0-cp313-cp313-manylinux_2_28_x86_64.whl)"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("numpy-2.0-py3-none-any.whl", "numpy-2.0-py3-none-any.whl: a wheel of numpy, not of boxlite"),
        ("boxlite-0.11.0-py3-none-any.whl", "not a complete wheel: "),
        ("mine.whl", "mine.whl: Invalid wheel filename"),
    ],
)
def test_a_foreign_wheel_is_wrong_usage(dist: Path, name: str, expected: str) -> None:
    (dist / name).write_text("no zip")
    with pytest.raises(UsageError) as error:
        builds.resolve(str(dist))
    assert str(error.value).startswith(f"--build {dist}: {name}: ")
    assert expected in str(error.value)


def test_a_release_that_the_suite_was_never_tried_with_is_not_applicable(tmp_path: Path, paths: Paths) -> None:
    build = builds.resolve(str(make_wheel(tmp_path, "boxlite", "0.8.2")))
    with pytest.raises(NotApplicable, match=r"the suite needs boxlite 0\.9\.0 or newer, and this is 0\.8\.2"):
        build.fetch(paths, facts(), lambda _: None)
