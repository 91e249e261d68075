"""What `--build` names without a prefix: releases, words for them, wheels of this host, folders of them."""

import marshal
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from lab import builds
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import hash_file
from lab.base.paths import Paths
from lab.builds import Build, wheels
from lab.builds.kinds.wheel import Wheel, choose
from lab.builds.pytest_tests import SITE
from lab.guest import deploy
from tests.builders.facts import facts
from tests.builders.guests import task_to
from tests.builders.packages import StandIn, make_wheel
from tests.builders.processes import LOCK_HOLDER, other_process

RELEASE = Wheel("0.10.8", "0.10.8")
TAGS = "cp313-cp313-manylinux_2_28_x86_64"
# With a pre-release; not in their order.
RELEASES = ["0.11.0rc1", "0.10.8", "0.10.10", "0.10.0", "0.9.7", "0.9.5"]
IN_ORDER = "0.9.5, 0.9.7, 0.10.0, 0.10.8, 0.10.10"

# Recorded: what uv prints with --quiet.
NO_WHEELS = """\
error: No solution found when resolving dependencies
  cause: Because boxlite==0.10.8 has no wheels with a matching Python implementation tag (e.g., `cp39`) and \
you require boxlite==0.10.8, we can conclude that your requirements are unsatisfiable.
"""
NO_SUCH_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of boxlite==0.10.8 and you require boxlite==0.10.8, we can conclude \
that your requirements are unsatisfiable.
"""
NO_RUNNER = """\
error: No solution found when resolving dependencies
  cause: Because pytest-reportlog was not found in the package registry and you require pytest-reportlog, we \
can conclude that your requirements are unsatisfiable.
"""

RUNNER = [
    "pytest-9.0-py3-none-any.whl",
    "pytest_reportlog-1.0-py3-none-any.whl",
    "pytest_timeout-2.4-py3-none-any.whl",
]
FETCHED = ["boxlite-0.10.8-py3-none-any.whl", *RUNNER]


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path, *released: str) -> StandIn:
    """uv and pip, with an index that has these releases and what runs their suite."""
    tools = StandIn(folder, monkeypatch, *released)
    for name in FETCHED:
        make_wheel(tools.folder, *name.split("-")[:2])
    return tools


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return serve(monkeypatch, tmp_path / "shelf", *RELEASES)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path, "boxlite", "0.10.8", tags=TAGS)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A folder with one wheel for each of two Pythons."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for tag in ("cp311", "cp313"):
        make_wheel(folder, "boxlite", "0.11.0", tags=f"{tag}-{tag}-manylinux_2_28_x86_64")
    return folder


def fetch(paths: Paths, build: Build = RELEASE, python: str = "3.13") -> list[str]:
    return list(build.fetch(paths, facts(python=python), UNWATCHED))


# --- which release ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version", "calls"),
    [
        (None, "0.10.10", 1),
        ("0.10.x", "0.10.10", 1),
        ("v0.10.*", "0.10.10", 1),
        ("0.x", "0.10.10", 1),
        ("previous", "0.10.8", 1),
        ("wheel:0.9.x", "0.9.7", 1),
        # Nobody is asked for a version.
        ("0.10.8", "0.10.8", 0),
        ("v0.11.0-rc1", "0.11.0rc1", 0),
    ],
)
def test_a_word_or_a_version_is_a_release_even_if_a_folder_is_called_so(
    tools: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, version: str, calls: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(str(text).removeprefix("wheel:"))
    folder.mkdir()
    build = builds.resolve_build(text)
    assert build == Wheel(version, version)
    assert builds.format_argument(build.record()) == version
    assert build.record().source == "PyPI"
    # The index is asked once.
    assert builds.resolve_build(text) == build
    assert len(tools.calls) == calls
    with pytest.raises(UsageError, match="a folder without wheels"):
        builds.resolve_build(f"./{folder}")


@pytest.mark.parametrize(
    ("word", "releases", "problem", "hint"),
    [
        ("0.12.x", RELEASES, "PyPI has no release of the series 0.12", f"there are {IN_ORDER}"),
        ("0.1.x", RELEASES, "PyPI has no release of the series 0.1", f"there are {IN_ORDER}"),
        ("previous", ["0.9.5"], "PyPI has no release before the newest", "there are 0.9.5"),
        ("previous", [], "PyPI has no release before the newest", "name a wheel with --build FILE.whl"),
    ],
)
def test_a_word_for_no_release_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, releases: list[str], problem: str, hint: str
) -> None:
    serve(monkeypatch, tmp_path / "shelf", *releases)
    with pytest.raises(UsageError) as error:
        builds.resolve_build(word)
    assert error.value.args[0] == f"--build {word}: {problem}"
    assert error.value.hint == hint


def test_without_the_index_a_word_stands_for_a_release_of_the_cache(paths: Paths) -> None:
    with pytest.raises(UsageError, match="has no release of boxlite"):
        builds.find_stored_build(paths)
    for version in ("0.9.7", "0.10.0", "0.10.8", "0.11.0rc1"):
        folder = paths.make(wheels.get_wheel_store(paths) / f"boxlite-{version}-0-cp313-x86_64")
        make_wheel(folder, "boxlite", version)
    stored = [builds.find_stored_build(paths, word) for word in (None, "0.10.x", "previous", "wheel:0.9.x")]
    stored.append(builds.find_stored_build(paths, "previous,suite=lifecycle"))
    names = ["0.10.8", "0.10.8", "0.10.0", "0.9.7", "lifecycle-0.10.0"]
    assert [build and build.name for build in stored] == names
    assert builds.find_stored_build(paths, "0.10.0") is None
    with pytest.raises(UsageError, match=r"--build 0\.11\.x: the cache .* has no release of the series 0\.11"):
        builds.find_stored_build(paths, "0.11.x")


def test_another_suite_makes_another_build_that_its_argument_names_again(wheel: Path, tools: StandIn) -> None:
    for text in ("0.10.8", str(wheel)):
        usual = builds.resolve_build(text)
        other = builds.resolve_build(f"{text},suite=lifecycle")
        assert (other.name, other.suite.name) == (f"lifecycle-{usual.name}", "lifecycle")
        # Where it is from is the same, and the record names its suite beside that.
        assert other.source == usual.source
        assert builds.format_argument(other.record()) == other.argument
        assert (other.version, usual.suite.name) == (usual.version, "jailer")
        others = [other, usual.with_suite("volumes"), usual.with_suite("reboot")]
        assert builds.choose_suites(usual, "all") == [usual, *others]
        assert builds.choose_suites(usual, "lifecycle") == builds.choose_suites(other, None) == [other]
        assert usual.digest != other.digest
        # A run is resumed, and goes to other hosts, by what its record says.
        assert builds.resolve_recorded_builds([other.record()]) == {other.name: other}
    assert tools.calls == []
    newest = builds.resolve_build(None, only_shown=True).with_suite("lifecycle")
    assert builds.resolve_build(newest.argument).name == "lifecycle-0.10.10"


@pytest.mark.parametrize(
    ("build", "suite", "error", "hint"),
    [
        ("0.10.8", "lifecycel", "no suite is called 'lifecycel'", "did you mean lifecycle?"),
        ("0.10.8", "network", "the suite network cannot be run against the build 0.10.8", "jailer, lifecycle"),
        ("0.10.8,suite=lifecycle", "jailer", "the suite jailer cannot be run against", "the suites lifecycle"),
        ("0.10.8,suite=", None, "the suite  cannot be run against the build 0.10.8", "jailer, lifecycle"),
    ],
)
def test_a_suite_that_cannot_be_run_is_wrong_usage(
    build: str, suite: str | None, error: str, hint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        builds.choose_suites(builds.resolve_build(build), suite)
    assert error in raised.value.args[0]
    assert hint in str(raised.value.hint)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.10.8", "0.10.0"), ("0.11.0rc1", "0.10.10"), ("0.10.8+mine", "0.10.8"), ("0.10.5", "0.10.0")],
)
def test_the_previous_release_is_the_newest_older_one(tools: StandIn, version: str, expected: str) -> None:
    assert builds.find_previous_release(Wheel(version, version)) == Wheel(expected, expected)


def test_pip_is_asked_for_the_releases_with_a_wheel_for_a_guest(tools: StandIn) -> None:
    assert wheels.list_releases("3.13", "aarch64") == wheels.list_releases("3.13", "aarch64")
    [asked] = tools.calls
    assert {"--python-version=3.13", "--platform=manylinux_2_17_aarch64"} <= set(asked)


def test_an_unknown_release_is_refused_before_all_else(paths: Paths, tools: StandIn, wheel: Path) -> None:
    # What a failed download left is no stored release.
    (paths.make(wheels.get_wheel_store(paths)) / "boxlite-99.0-00000000-cp313-x86_64.lock").touch()
    tools.fails["versions"] = "Connection refused"
    with pytest.raises(LabError, match=r"list the releases of boxlite: Connection refused") as fault:
        RELEASE.check(paths)
    assert (fault.value.exit_status, "--build VERSION" in (fault.value.hint or "")) == (3, True)
    tools.fails.clear()
    tools.calls.clear()
    # Nobody is asked for a wheel, or for a release that is stored.
    (wheels.get_wheel_store(paths) / "boxlite-0.10.8-00000000-cp313-x86_64").mkdir()
    RELEASE.check(paths)
    builds.resolve_build(str(wheel)).check(paths)
    assert tools.calls == []
    with pytest.raises(UsageError, match=r"there is no release 99\.0 of boxlite") as error:
        Wheel("99.0", "99.0").check(paths)
    assert error.value.hint == f"there are {IN_ORDER}, 0.11.0rc1"
    Wheel("0.11.0rc1", "0.11.0rc1").check(paths)


# --- wheels of this host ------------------------------------------------------------------------------


def test_a_local_wheel_is_named_by_version_and_digest(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(wheel.parent)
    for text in (str(wheel), wheel.name):
        build = builds.resolve_build(text)
        assert build == Wheel(f"0.10.8@{hash_file(wheel)[:8]}", "0.10.8", wheel)
    record = build.record({wheel.name: wheel})
    assert record.source == str(wheel)
    assert record.files == {wheel.name: hash_file(wheel)}


def test_several_builds_keep_their_order_and_each_name_counts_once(wheel: Path, tools: StandIn) -> None:
    local = builds.resolve_build(str(wheel))
    resolved = builds.resolve_builds(["0.11.0", str(wheel), "0.10.8", "v0.11.0", str(wheel)])
    assert resolved == [Wheel("0.11.0", "0.11.0"), local, RELEASE]
    assert tools.calls == []
    (wheel.parent / "copy").mkdir()
    copy = str(shutil.copy(wheel, wheel.parent / "copy"))
    # The name is what tells cells and their folders apart.
    assert [build.name for build in builds.resolve_builds([str(wheel), copy])] == [local.name]
    assert builds.resolve_builds([]) == [Wheel("0.10.10", "0.10.10")]
    with pytest.raises(UsageError, match="--build latest!"):
        builds.resolve_builds(["0.10.8", "latest!"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("latest!", "--build latest!: neither a version nor the path of a wheel"),
        ("boxlite-0.10.8-py3-none-any.whl", "no such file"),
        ("folder", "--build folder: a folder without wheels"),
        ("notes.txt", "--build notes.txt: Invalid wheel filename"),
        ("numpy-2.0-py3-none-any.whl", "a wheel of numpy, not of boxlite"),
        ("boxlite-0.9.0-py3-none-any.whl", "not a zip file"),
        # Of a folder, the wrong wheel is named.
        ("bad", "--build bad: numpy-2.0-py3-none-any.whl: a wheel of numpy, not of boxlite"),
        (
            "mixed",
            "--build mixed: wheels of several versions: 0.10.8 (boxlite-0.10.8-py3-none-any.whl), "
            "0.11.0 (boxlite-0.11.0-py3-none-any.whl)",
        ),
    ],
)
def test_a_build_that_is_none_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "bad", "mixed"):
        Path(folder).mkdir()
    for file in ("notes.txt", "numpy-2.0-py3-none-any.whl", "boxlite-0.9.0-py3-none-any.whl"):
        Path(file).write_text("no zip")
    shutil.copy("numpy-2.0-py3-none-any.whl", "bad")
    for version in ("0.10.8", "0.11.0"):
        make_wheel(Path("mixed"), "boxlite", version)
    with pytest.raises(UsageError) as error:
        builds.resolve_build(name)
    assert expected in str(error.value)


def test_a_folder_is_named_by_version_and_content(dist: Path, tmp_path: Path) -> None:
    build = builds.resolve_build(str(dist))
    assert build.name.startswith("0.11.0@")
    assert (build.version, build.argument, build.source) == ("0.11.0", str(dist), str(dist))
    copy = shutil.copytree(dist, tmp_path / "copy")
    (copy / "notes.txt").write_text("beside the wheels")
    assert builds.resolve_build(str(copy)).name == build.name
    (wheel := next(dist.glob("*cp313*"))).unlink()
    assert builds.resolve_build(str(dist)).name not in (
        build.name,
        builds.resolve_build(str(copy / wheel.name)).name,
    )
    with pytest.raises(UsageError, match="changed since"):
        builds.resolve_recorded_builds([build.record()])


def test_each_guest_gets_its_wheel(dist: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "download_wheels", lambda *_: {})
    build = builds.resolve_build(str(dist))
    names = [f"boxlite-0.11.0-{tag}-{tag}-manylinux_2_28_x86_64.whl" for tag in ("cp311", "cp313")]
    for python, name in zip(("3.11", "3.13"), names, strict=True):
        assert build.fetch(paths, facts(python=python), UNWATCHED) == {name: dist / name}
    with pytest.raises(NotApplicable) as reason:
        fetch(paths, build, "3.12")
    assert str(reason.value) == f"{dist} has no wheel for Python 3.12 on x86_64, only {', '.join(names)}"
    # Of several that one counts which pip prefers.
    newer = make_wheel(dist, "boxlite", "0.11.0", tags="cp313-cp313-manylinux_2_34_x86_64")
    abi3 = make_wheel(dist, "boxlite", "0.11.0", tags="cp310-abi3-manylinux_2_17_x86_64")
    make_wheel(dist, "boxlite", "0.11.0", tags="cp313-cp313-manylinux_2_28_aarch64")
    assert choose(dist, facts(python="3.13")) == newer
    assert choose(dist, facts(python="3.12")) == abi3


@pytest.mark.parametrize(
    ("tags", "python", "fits"),
    [
        ("cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64", "3.11", True),
        ("py3-none-any", "3.12", True),
        ("cp310-abi3-manylinux_2_28_x86_64", "3.9", False),
        ("cp313-cp313-musllinux_1_2_x86_64", "3.13", False),
    ],
)
def test_a_wheel_comes_first_and_the_runner_after_it_where_the_wheel_fits_the_guest(
    tmp_path: Path, paths: Paths, tools: StandIn, tags: str, python: str, fits: bool
) -> None:
    (tools.folder / FETCHED[0]).unlink()
    wheel = make_wheel(tmp_path, "boxlite", "0.10.8", tags=tags)
    build = builds.resolve_build(str(wheel))
    if fits:
        assert fetch(paths, build, python) == [wheel.name, *RUNNER]
    else:
        with pytest.raises(NotApplicable, match=f"is not for Python {python}"):
            fetch(paths, build, python)


# --- fetching -----------------------------------------------------------------------------------------


def cached(paths: Paths) -> list[str]:
    return sorted(file.name for file in wheels.get_wheel_store(paths).iterdir() if file.is_dir())


def test_a_release_is_fetched_once_for_each_python_and_kept_whole(paths: Paths, tools: StandIn) -> None:
    half = tools.folder / "half-1-py3-none-any.whl"
    half.touch()
    tools.fails["download"] = "Connection refused"
    with pytest.raises(LabError, match="Connection refused"):
        fetch(paths)
    assert cached(paths) == []
    half.unlink()
    tools.fails.clear()
    tools.calls.clear()
    assert fetch(paths) == fetch(paths) == FETCHED
    assert ["--python-version=3.13" in call for call in tools.calls] == [True, True]
    fetch(paths, python="3.11")
    assert len(tools.calls) == 4
    assert cached(paths) == ["boxlite-0.10.8-02e3de1a-cp311-x86_64", "boxlite-0.10.8-02e3de1a-cp313-x86_64"]


@pytest.mark.parametrize(
    ("printed", "error", "expected"),
    [
        (NO_WHEELS, NotApplicable, "boxlite==0.10.8 has no wheel for Python 3.13"),
        (NO_SUCH_VERSION, NotApplicable, "boxlite==0.10.8 has no wheel for Python 3.13"),
        ("error: Request failed\n  cause: Connection refused (os error 111)\n", LabError, "Connection refused"),
        (NO_RUNNER, LabError, "pytest-reportlog"),
    ],
)
def test_what_uv_says_decides_whose_fault_it_is(
    paths: Paths, tools: StandIn, printed: str, error: type[Exception], expected: str
) -> None:
    tools.fails["compile"] = printed
    with pytest.raises(error, match=expected) as raised:
        fetch(paths)
    assert type(raised.value) is error


def test_waiting_for_another_lab_that_fetches_is_told_and_can_be_ended(paths: Paths, tools: StandIn) -> None:
    fetch(paths)
    [name] = cached(paths)

    texts: list[str] = []

    def check() -> None:
        if texts:
            raise LabError(f"stopped while {texts[0]}")

    with (
        other_process(LOCK_HOLDER, wheels.get_wheel_store(paths) / f"{name}.lock"),
        pytest.raises(LabError) as ended,
    ):
        RELEASE.fetch(paths, facts(python="3.13"), replace(task_to(texts), check=check))
    doing = "fetching boxlite==0.10.8 for Python 3.13"
    assert str(ended.value) == f"stopped while waiting for another lab that is {doing}"
    assert fetch(paths) == FETCHED


# --- what a guest gets --------------------------------------------------------------------------------


def test_an_archive_says_nothing_of_who_packed_it(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    folder.mkdir(mode=0o700)
    (folder / "test.py").write_text("pass")
    (folder / "test.py").chmod(0o600)
    packed = BytesIO()
    deploy.pack_files({"suites/jailer": folder}, packed)
    with tarfile.open(fileobj=BytesIO(packed.getvalue()), mode="r:") as stream:
        tar = [*stream]
    assert [(entry.name, entry.mode) for entry in tar] == [
        ("suites/jailer", 0o755),
        ("suites/jailer/test.py", 0o644),
    ]
    assert {(entry.uid, entry.gid, entry.uname) for entry in tar} == {(0, 0, "root")}


@pytest.mark.parametrize("python", [f"{sys.version_info.major}.{sys.version_info.minor}", "3.99"])
def test_wheels_are_compiled_here_if_the_guest_has_this_python(tmp_path: Path, python: str) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("x.py", "def where(): raise ValueError\n")
    (tmp_path / "new").mkdir()
    laid_out = RELEASE.laid_out({wheel.name: wheel, "boxlite": wheel}, tmp_path / "new", python)
    assert laid_out == {SITE: tmp_path / "new" / "site", f"{builds.FILES}/boxlite": wheel}
    compiled = list((tmp_path / "new").rglob("*.pyc"))
    assert [file.name.partition(".")[0] for file in compiled] == ([] if python == "3.99" else ["x"])
    for file in compiled:
        # What Python shows of an error names the guest's file.
        assert marshal.loads(file.read_bytes()[16:]).co_filename == f"{SITE}/x.py"
