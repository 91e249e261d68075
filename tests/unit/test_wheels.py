"""Which wheels a guest's Python needs.

`served` is an index of tiny wheels that the real pip asks; `shelf` is a folder of such wheels, and quicker.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.base import process
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds.wheel import Wheel
from lab.builds.pytest_tests import RUNNER
from tests.builders.facts import facts
from tests.builders.packages import choose, index, make_wheel

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
BINARY = "manylinux_2_28_x86_64"

Fetch = Callable[..., list[str]]


def quiet(_text: str) -> None:
    pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an index; pip asks that index and no other."""
    folder = tmp_path / "index"
    folder.mkdir()
    pythons = {"narrow-2.0-py3-none-any.whl": ">=3.12"}
    with index(folder, pythons) as address:
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
            monkeypatch.delenv(name, raising=False)
        # No configuration of this host's: it may name other places, or versions.
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", address)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        yield folder


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pure wheels, with something in pip's place that takes them from there."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(process, "run", lambda command, timeout: choose(folder, command))
    return folder


@pytest.fixture
def fetch(paths: Paths) -> Fetch:
    def fetched(python: str, *requirements: str) -> list[str]:
        files = wheels.download(paths, requirements, python, "test", quiet)
        return ["-".join(file.name.split("-")[:2]) for file in files]

    return fetched


def make_runner(folder: Path) -> None:
    """What runs the suite, with the requirements that the real projects have."""
    make_wheel(
        folder,
        "pytest",
        "9.0",
        'exceptiongroup>=1; python_version < "3.11"',
        'tomli>=2; python_version < "3.11"',
        'colorama; sys_platform == "win32"',
        "iniconfig>=2",
        'numpy; extra == "dev"',
        extras=["dev"],
    )
    make_wheel(folder, "exceptiongroup", "1.3", 'typing-extensions>=4; python_version < "3.13"')
    for name, version in [("tomli", "2.0"), ("iniconfig", "2.0"), ("typing-extensions", "4.0")]:
        make_wheel(folder, name, version)
    make_wheel(folder, "pytest-timeout", "2.4", "pytest>=7")
    make_wheel(folder, "pytest-reportlog", "1.0", "pytest")


@pytest.mark.parametrize("python", PYTHONS)
def test_markers_are_judged_for_the_python_of_the_guest(served: Path, paths: Paths, python: str) -> None:
    make_runner(served)
    tag = f"cp{python.replace('.', '')}"
    make_wheel(served, "boxlite", "0.10.8", 'tomli>=2; extra == "dev"', tags=f"{tag}-{tag}-{BINARY}")
    build = Wheel("0.10.8", "0.10.8")
    names = {name.split("-")[0] for name in build.fetch(paths, facts(python=python), quiet)}
    backports = {"exceptiongroup", "tomli", "typing_extensions"} if python == "3.10" else set()
    assert names == {"boxlite", "pytest", "pytest_timeout", "pytest_reportlog", "iniconfig"} | backports


def test_what_only_the_python_of_the_host_needs_is_not_asked_for(shelf: Path, fetch: Fetch) -> None:
    # The index does not even have it.
    make_wheel(shelf, "a", "1.0", 'newer; python_version >= "3.12"', 'other; platform_machine == "aarch64"')
    assert fetch("3.10", "a") == ["a-1.0"]


def test_a_chain_of_requirements_is_followed_to_its_end(shelf: Path, fetch: Fetch) -> None:
    for name, need in [("a", ["b"]), ("b", ["c.d>=1"]), ("c-d", ["e; python_version < '3.11'"]), ("e", ["a"])]:
        make_wheel(shelf, name, "1.0", *need)
    assert fetch("3.10", "a") == ["a-1.0", "b-1.0", "c_d-1.0", "e-1.0"]


@pytest.mark.parametrize(("python", "expected"), [("3.10", ["e-1.0"]), ("3.13", [])])
def test_extras_bring_their_own_requirements(
    shelf: Path, fetch: Fetch, python: str, expected: list[str]
) -> None:
    make_wheel(shelf, "a", "1.0", "b[fast]", "b")
    make_wheel(
        shelf,
        "b",
        "1.0",
        'c; extra == "fast"',
        'd; extra == "slow"',
        'e; extra == "fast" and python_version < "3.11"',
        extras=["fast", "slow"],
    )
    for name in "ce":
        make_wheel(shelf, name)
    assert fetch(python, "a") == ["a-1.0", "b-1.0", "c-1.0", *expected]


@pytest.mark.parametrize(("python", "expected"), [("3.11", "narrow-1.0"), ("3.12", "narrow-2.0")])
def test_a_release_that_is_not_for_a_python_is_passed_over(
    served: Path, fetch: Fetch, python: str, expected: str
) -> None:
    make_wheel(served, "narrow", "1.0")
    make_wheel(served, "narrow", "2.0", python=">=3.12")
    assert fetch(python, "narrow") == [expected]


def test_only_wheels_for_the_platform_and_the_python_of_the_guest_are_taken(served: Path, paths: Paths) -> None:
    for tags in (
        "cp310-cp310-macosx_11_0_arm64",
        "cp310-cp310-manylinux_2_28_aarch64",
        "cp313-cp313-manylinux_2_28_x86_64",
        "cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64",
    ):
        make_wheel(served, "a", tags=tags)
    [wheel] = wheels.download(paths, ["a"], "3.10", "test", quiet)
    assert wheel.name == "a-1.0-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


def test_all_that_is_asked_of_a_project_decides_its_version(shelf: Path, fetch: Fetch) -> None:
    # b is fetched first in its newest version, before c says that this is too new.
    make_wheel(shelf, "a", "1.0", "b>=1", "c")
    make_wheel(shelf, "c", "1.0", "b<2")
    make_wheel(shelf, "b", "2.0", "missing")
    make_wheel(shelf, "b", "1.5")
    make_wheel(shelf, "missing")
    assert fetch("3.10", "a") == ["a-1.0", "b-1.5", "c-1.0"]


def test_requirements_that_contradict_each_other_are_an_error_and_nothing_is_stored(
    served: Path, paths: Paths
) -> None:
    make_wheel(served, "a", "1.0", "b>=2", "c")
    make_wheel(served, "c", "1.0", "b<2")
    make_wheel(served, "b", "2.0")
    make_wheel(served, "b", "1.5")
    with pytest.raises(LabError, match=r"pip could not fetch a for Python 3\.10"):
        wheels.download(paths, ["a"], "3.10", "test", quiet)
    assert [each for each in wheels.store(paths).iterdir() if each.is_dir()] == []


def test_a_guest_for_whose_python_there_is_no_release_is_not_applicable(served: Path, paths: Paths) -> None:
    make_runner(served)
    make_wheel(served, "boxlite", "0.10.8", tags=f"cp313-cp313-{BINARY}")
    with pytest.raises(NotApplicable, match=r"boxlite has no wheels for Python 3\.10"):
        Wheel("0.10.8", "0.10.8").fetch(paths, facts(python="3.10"), quiet)


def test_a_store_that_is_not_as_it_was_fetched_is_fetched_again(shelf: Path, paths: Paths) -> None:
    make_runner(shelf)
    first = wheels.download(paths, RUNNER, "3.10", "test", quiet)
    first[0].unlink()
    assert wheels.download(paths, RUNNER, "3.10", "test", quiet) == first
    first[0].write_bytes(b"damaged")
    assert wheels.download(paths, RUNNER, "3.10", "test", quiet) == first
    assert zipfile.is_zipfile(first[0])
    for wheel in shelf.iterdir():
        wheel.unlink()
    assert wheels.download(paths, RUNNER, "3.10", "test", quiet) == first


def test_a_local_wheel_brings_what_it_needs_itself(shelf: Path, paths: Paths, tmp_path: Path) -> None:
    make_runner(shelf)
    make_wheel(shelf, "helper")
    wheel = make_wheel(tmp_path, "boxlite", "0.11.0", "helper>=1", 'tomli; python_version < "3.11"')
    names = {python: list(_local(wheel, paths, python)) for python in ("3.10", "3.13")}
    assert {"helper-1.0-py3-none-any.whl", "tomli-2.0-py3-none-any.whl"} <= set(names["3.10"])
    assert "helper-1.0-py3-none-any.whl" in names["3.13"]
    assert "tomli-2.0-py3-none-any.whl" not in names["3.13"]


def _local(wheel: Path, paths: Paths, python: str) -> dict[str, Path]:
    return Wheel.parse(str(wheel)).fetch(paths, facts(python=python), quiet)


def test_a_local_wheel_that_is_not_for_a_python_is_not_applicable_there(paths: Paths, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "boxlite", "0.11.0", python=">=3.12")
    with pytest.raises(NotApplicable, match=r"is not for Python 3\.10"):
        _local(wheel, paths, "3.10")


@pytest.mark.parametrize("content", [b"no zip", b"", b"PK\x03\x04" + bytes(40)])
def test_a_wheel_that_nobody_can_read_is_a_damaged_one(tmp_path: Path, content: bytes) -> None:
    wheel = tmp_path / "a-1.0-py3-none-any.whl"
    wheel.write_bytes(content)
    with pytest.raises(ValueError, match="not a complete wheel: "):
        wheels.needs(wheel, "3.10")


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        ("a b c !!", "its METADATA is not valid"),
        ("x; nothing == 'y'", "its METADATA is not valid"),
        # pip would run what builds it on this host.
        ("x @ file:///tmp/x", "it requires x from file:///tmp/x, and not from a package index"),
        ("x @ git+https://example.org/x ; python_version < '3'", "it requires x from git"),
    ],
)
def test_a_wheel_that_asks_for_nonsense_is_a_damaged_one(tmp_path: Path, need: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        wheels.needs(make_wheel(tmp_path, "a", "1.0", need), "3.10")


def test_a_wheel_without_metadata_is_a_damaged_one(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a/METADATA", "Name: a")
    with pytest.raises(ValueError, match="it holds no METADATA"):
        wheels.needs(wheel, "3.10")
