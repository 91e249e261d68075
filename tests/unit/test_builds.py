import marshal
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest

from lab import builds
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import Build, wheels
from lab.builds.kinds.wheel import Wheel
from lab.builds.pytest_tests import SITE
from lab.guest import deploy
from tests.builders.facts import facts
from tests.builders.packages import StandIn
from tests.builders.packages import make_wheel as shelf_wheel
from tests.builders.processes import LOCK_HOLDER, other_process

RELEASE = Wheel("0.10.8", "0.10.8")
TAGS = "cp313-cp313-manylinux_2_28_x86_64"

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
UNREACHABLE = """\
error: Request failed after 3 retries in 6.1s
  cause: Failed to fetch: http://127.0.0.1:9/simple/boxlite/
  cause: Connection refused (os error 111)
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


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """uv and pip, with an index that has a release and what runs its suite."""
    found = StandIn(tmp_path / "shelf", monkeypatch, "0.11.0rc1", "0.10.8", "0.10.0", "0.9.7")
    for name in FETCHED:
        shelf_wheel(found.folder, *name.split("-")[:2])
    return found


def make_wheel(folder: Path, name: str = f"boxlite-0.10.8-{TAGS}.whl") -> Path:
    return shelf_wheel(folder, "boxlite", "0.10.8", tags=name.removesuffix(".whl").split("-", 2)[2])


def fetch(paths: Paths, build: Build = RELEASE, python: str = "3.13") -> list[str]:
    return list(build.fetch(paths, facts(python=python), lambda _text: None))


@pytest.mark.parametrize(("text", "version"), [("0.10.8", "0.10.8"), ("v0.11.0-rc1", "0.11.0rc1")])
def test_a_version_is_a_release(text: str, version: str) -> None:
    assert builds.resolve(text) == Wheel(version, version)


def test_without_a_wish_the_newest_release_is_taken(tools: StandIn) -> None:
    assert builds.resolve(None) == RELEASE
    assert builds.resolve_all([]) == [RELEASE]


def test_releases_that_cannot_be_asked_for_are_a_fault_that_says_what_to_do(
    tools: StandIn, paths: Paths
) -> None:
    tools.fails["versions"] = "Connection refused"
    for ask in (lambda: builds.resolve(None), lambda: RELEASE.check(paths)):
        with pytest.raises(LabError, match=r"which releases of boxlite there are: Connection refused") as error:
            ask()
        assert error.value.exit_status == 3
        assert "--build VERSION" in (error.value.hint or "")


def test_releases_come_oldest_first_without_pre_releases_and_are_asked_for_once(tools: StandIn) -> None:
    assert list(map(str, builds.releases())) == ["0.9.7", "0.10.0", "0.10.8"]
    assert builds.releases() == builds.releases()
    assert len(tools.calls) == 1
    assert "--python-version=3.13" not in tools.calls[0]


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.10.8", "0.10.0"), ("0.11.0rc1", "0.10.8"), ("0.10.8+mine", "0.10.8"), ("0.10.5", "0.10.0")],
)
def test_the_release_before_a_version_is_the_newest_that_is_older(
    tools: StandIn, version: str, expected: str
) -> None:
    assert builds.previous(Wheel(version, version)) == Wheel(expected, expected)


def test_nothing_is_older_than_the_oldest_release(tools: StandIn) -> None:
    with pytest.raises(UsageError, match=r"no release of boxlite older than 0\.9\.7"):
        builds.previous(Wheel("0.9.7", "0.9.7"))


def test_a_release_that_there_is_not_is_wrong_usage_before_anything_is_started(
    paths: Paths, tools: StandIn
) -> None:
    # What a failed download left is no stored release.
    (paths.make(wheels.store(paths)) / "boxlite-99.0-00000000-cp313.lock").touch()
    with pytest.raises(UsageError, match=r"there is no release 99\.0 of boxlite") as error:
        Wheel("99.0", "99.0").check(paths)
    assert error.value.hint == "there are 0.9.7, 0.10.0, 0.10.8, 0.11.0rc1"
    RELEASE.check(paths)
    Wheel("0.11.0rc1", "0.11.0rc1").check(paths)


def test_nobody_is_asked_for_a_wheel_or_a_release_that_is_stored(
    paths: Paths, tmp_path: Path, tools: StandIn
) -> None:
    (paths.make(wheels.store(paths)) / "boxlite-0.10.8-00000000-cp313").mkdir()
    RELEASE.check(paths)
    builds.resolve(str(make_wheel(tmp_path))).check(paths)
    assert tools.calls == []


def test_a_local_wheel_is_named_by_version_and_digest_and_known_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path)
    monkeypatch.chdir(tmp_path)
    for text in (str(wheel), wheel.name):
        assert builds.resolve(text) == Wheel(f"0.10.8@{sha256(wheel)[:8]}", "0.10.8", wheel)


def test_several_builds_keep_their_order_and_each_counts_once(tmp_path: Path, tools: StandIn) -> None:
    wheel = make_wheel(tmp_path)
    local = builds.resolve(str(wheel))
    resolved = builds.resolve_all(["0.11.0", str(wheel), "0.10.8", "v0.11.0", str(wheel)])
    assert resolved == [Wheel("0.11.0", "0.11.0"), local, RELEASE]
    # Nobody is asked for the newest release.
    assert tools.calls == []


def test_no_two_builds_have_one_name(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    (tmp_path / "copy").mkdir()
    copy = str(shutil.copy(wheel, tmp_path / "copy"))
    # The name is what tells cells and their folders apart.
    assert [build.name for build in builds.resolve_all([str(wheel), copy])] == [builds.resolve(copy).name]


def test_one_wrong_build_among_several_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--build latest!"):
        builds.resolve_all(["0.10.8", "latest!"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("latest!", "neither a version nor the path of a wheel"),
        ("", "--build"),
        ("boxlite-0.10.8-py3-none-any.whl", "no such file"),
        ("folder", "a folder without wheels"),
        ("notes.txt", "Invalid wheel filename"),
        ("boxlite.whl", "Invalid wheel filename"),
        ("numpy-2.0-py3-none-any.whl", "a wheel of numpy, not of boxlite"),
        ("boxlite-0.9.0-py3-none-any.whl", "not a complete wheel: "),
    ],
)
def test_a_build_that_is_none_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for file in ("notes.txt", "boxlite.whl", "numpy-2.0-py3-none-any.whl", "boxlite-0.9.0-py3-none-any.whl"):
        Path(file).write_text("no zip")
    with pytest.raises(UsageError) as error:
        builds.resolve(name)
    assert f"--build {name}" in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("tags", "python", "fits"),
    [
        ("cp313-cp313-manylinux_2_28_x86_64", "3.13", True),
        ("cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64", "3.11", True),
        ("py3-none-any", "3.12", True),
        ("cp312-cp312-manylinux_2_28_x86_64", "3.13", False),
        ("cp310-abi3-manylinux_2_28_x86_64", "3.9", False),
        ("cp313-cp313-manylinux_2_28_aarch64", "3.13", False),
        ("cp313-cp313-musllinux_1_2_x86_64", "3.13", False),
    ],
)
def test_a_wheel_comes_first_and_the_runner_after_it_where_the_wheel_fits_the_guest(
    tmp_path: Path, paths: Paths, tools: StandIn, tags: str, python: str, fits: bool
) -> None:
    (tools.folder / FETCHED[0]).unlink()
    wheel = make_wheel(tmp_path, f"boxlite-0.10.8-{tags}.whl")
    build = builds.resolve(str(wheel))
    if fits:
        assert fetch(paths, build, python) == [wheel.name, *RUNNER]
    else:
        with pytest.raises(NotApplicable, match=f"is not for Python {python}"):
            fetch(paths, build, python)


def test_a_release_is_fetched_once_for_each_python(paths: Paths, tools: StandIn) -> None:
    assert fetch(paths) == fetch(paths) == FETCHED
    resolving, fetching = tools.calls
    assert "--python-version=3.13" in resolving
    assert "--python-version=3.13" in fetching
    fetch(paths, python="3.11")
    assert len(tools.calls) == 4


@pytest.mark.parametrize(
    ("printed", "error", "expected"),
    [
        (NO_WHEELS, NotApplicable, "boxlite==0.10.8 has no wheel for Python 3.13"),
        (NO_SUCH_VERSION, NotApplicable, "boxlite==0.10.8 has no wheel for Python 3.13"),
        (UNREACHABLE, LabError, "Connection refused"),
        (NO_RUNNER, LabError, "pytest-reportlog"),
        ("error: No space left on device", LabError, "No space left on device"),
    ],
)
def test_what_uv_says_decides_whose_fault_it_is(
    paths: Paths, tools: StandIn, printed: str, error: type[Exception], expected: str
) -> None:
    tools.fails["compile"] = printed
    with pytest.raises(error, match=expected) as raised:
        fetch(paths)
    assert type(raised.value) is error


def test_a_download_that_fails_leaves_no_half_in_the_store(paths: Paths, tools: StandIn) -> None:
    (tools.folder / "half-1-py3-none-any.whl").touch()
    tools.fails["download"] = "Connection refused"
    with pytest.raises(LabError, match="Connection refused"):
        fetch(paths)
    assert [file.name for file in wheels.store(paths).iterdir() if file.is_dir()] == []
    (tools.folder / "half-1-py3-none-any.whl").unlink()
    tools.fails.clear()
    assert fetch(paths) == FETCHED


def test_waiting_for_another_lab_that_fetches_is_said_and_ends_when_the_caller_wants(
    paths: Paths, tools: StandIn
) -> None:
    fetch(paths)
    [folder] = [file for file in wheels.store(paths).iterdir() if file.is_dir()]

    def stop(text: str) -> NoReturn:
        raise LabError(f"stopped while {text}")

    with other_process(LOCK_HOLDER, folder.with_name(f"{folder.name}.lock")), pytest.raises(LabError) as ended:
        RELEASE.fetch(paths, facts(python="3.13"), stop)
    assert str(ended.value) == "stopped while waiting for boxlite==0.10.8 for Python 3.13 to be fetched"
    assert fetch(paths) == FETCHED


def test_a_record_holds_the_digest_of_every_wheel(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    record = builds.resolve(str(wheel)).record({wheel.name: wheel})
    assert record.source == str(wheel)
    assert record.files == {wheel.name: sha256(wheel)}
    assert RELEASE.record().source == "PyPI"


def test_a_payload_says_nothing_of_who_packed_it_and_replaces_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    folder.mkdir(mode=0o700)
    (folder / "test.py").write_text("pass")
    (folder / "test.py").chmod(0o600)
    disk = tmp_path / "payload.tar"
    disk.write_bytes(b"x" * 2**20)
    size = deploy.pack({"suites/jailer": folder}, disk)
    assert 0 < size < disk.stat().st_size == 2**20
    with tarfile.open(disk, mode="r:") as stream:
        tar = [*stream]
    assert [(entry.name, entry.mode) for entry in tar] == [
        ("suites/jailer", 0o755),
        ("suites/jailer/test.py", 0o644),
    ]
    assert {(entry.uid, entry.gid, entry.uname) for entry in tar} == {(0, 0, "root")}


@pytest.mark.parametrize("python", [f"{sys.version_info.major}.{sys.version_info.minor}", "3.99"])
def test_wheels_are_unpacked_and_compiled_on_this_host_if_the_guest_has_its_python(
    tmp_path: Path, python: str
) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("x.py", "def where(): raise ValueError\n")
    (tmp_path / "new").mkdir()
    found = RELEASE.laid_out({wheel.name: wheel, "boxlite": wheel}, tmp_path / "new", python)
    assert found == {SITE: tmp_path / "new" / "site", f"{builds.FILES}/boxlite": wheel}
    compiled = list((tmp_path / "new").rglob("*.pyc"))
    assert [each.name.partition(".")[0] for each in compiled] == ([] if python == "3.99" else ["x"])
    for each in compiled:
        # What Python shows of an error names the guest's file.
        assert marshal.loads(each.read_bytes()[16:]).co_filename == f"{SITE}/x.py"
