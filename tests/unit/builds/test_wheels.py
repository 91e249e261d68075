"""Which wheels a guest's Python needs: `served` is a folder of tiny wheels for the real uv and pip."""

import zipfile
from pathlib import Path

import pytest

from lab.base import process
from lab.base.activity import UNWATCHED
from lab.base.archives import DamagedArchive
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds.wheel import Wheel
from tests.builders.facts import facts
from tests.builders.packages import StandIn, make_wheel

BINARY = "manylinux_2_28_x86_64"
RELEASE = Wheel("0.10.8", "0.10.8")
# Every variable by which pip or uv could take another index, or another version, than that of the test.
OTHERS = ("FIND_LINKS", "EXTRA_INDEX_URL", "NO_INDEX", "CONSTRAINT", "INDEX", "DEFAULT_INDEX", "INDEX_URL")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, from which alone pip is told to take wheels, and uv by the lab."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in OTHERS:
        monkeypatch.delenv(f"PIP_{name}", raising=False)
        monkeypatch.delenv(f"UV_{name}", raising=False)
    # No configuration of this host's: it may name other places, or versions.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


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


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.14"])
def test_markers_are_judged_for_the_python_of_the_guest(served: Path, paths: Paths, python: str) -> None:
    make_runner(served)
    for tag in ("cp310", "cp313"):
        make_wheel(served, "boxlite", "0.10.8", tags=f"{tag}-abi3-{BINARY}")
    # None of these is for a guest.
    for platform in ("macosx_11_0_arm64", "manylinux_2_28_aarch64"):
        make_wheel(served, "boxlite", "0.10.8", tags=f"cp39-abi3-{platform}")
    if python == "3.9":
        with pytest.raises(NotApplicable, match=r"boxlite==0\.10\.8 has no wheel for Python 3\.9"):
            RELEASE.fetch(paths, facts(python=python), UNWATCHED)
        return
    names = {name.split("-")[0] for name in RELEASE.fetch(paths, facts(python=python), UNWATCHED)}
    backports = {"exceptiongroup", "tomli", "typing_extensions"} if python == "3.10" else set()
    assert names == {"boxlite", "pytest", "pytest_timeout", "pytest_reportlog", "iniconfig"} | backports


@pytest.mark.parametrize("need", ["b @ file://FOLDER/b-1.0-py3-none-any.whl", "b @ file://FOLDER"])
def test_what_no_index_has_is_never_built(served: Path, paths: Paths, tmp_path: Path, need: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    make_wheel(project, "b")
    (project / "pyproject.toml").write_text('[project]\nname = "b"\nversion = "1.0"\n')
    (project / "setup.py").write_text(f"open({str(tmp_path / 'built')!r}, 'w')\n")
    make_wheel(served, "a", "1.0", need.replace("FOLDER", str(project)))
    with pytest.raises(LabError, match="could not be fetched for Python"):
        wheels.download_wheels(paths, ["a"], "3.10", "x86_64", UNWATCHED)
    assert not (tmp_path / "built").exists()


PRINTED = """\
WARNING: something else
:env:.index-url='https://a.example/simple'
download.find-links='/one'
global.extra-index-url='https://b.example/simple\\nhttps://c.example/simple'
global.index-url='https://d.example/simple'
global.timeout='180'
"""


def test_pip_s_configuration_says_where_uv_finds_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS:
        monkeypatch.delenv(f"UV_{name}", raising=False)
    monkeypatch.setattr(process, "run_command", lambda *_, **__: PRINTED)
    assert wheels.read_index_settings() == {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_FIND_LINKS": "/one",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
    }
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert "UV_DEFAULT_INDEX" not in wheels.read_index_settings()


def test_a_damaged_store_is_fetched_anew(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = StandIn(tmp_path / "shelf", monkeypatch)
    make_runner(tools.folder)

    def download() -> tuple[list[Path], int]:
        before = len(tools.calls)
        files = wheels.download_wheels(paths, ["pytest"], "3.10", "x86_64", UNWATCHED)
        return list(files.values()), len(tools.calls) - before

    files, _ = download()
    assert download() == (files, 0)
    files[0].unlink()
    assert download() == (files, 2)
    files[0].write_bytes(b"damaged")
    assert download() == (files, 2)
    assert zipfile.is_zipfile(files[0])


def test_a_local_wheel_brings_what_it_needs_itself(served: Path, paths: Paths, tmp_path: Path) -> None:
    make_runner(served)
    make_wheel(served, "helper")
    needs = ("helper>=1", 'tomli; python_version < "3.11"', 'numpy; extra == "dev"')
    build = Wheel.parse(str(make_wheel(tmp_path, "boxlite", "0.11.0", *needs, extras=["dev"])))
    names = {python: set(build.fetch(paths, facts(python=python), UNWATCHED)) for python in ("3.10", "3.13")}
    assert {"helper-1.0-py3-none-any.whl", "tomli-2.0-py3-none-any.whl"} <= names["3.10"]
    assert "helper-1.0-py3-none-any.whl" in names["3.13"]
    assert "tomli-2.0-py3-none-any.whl" not in names["3.13"]


def test_a_local_wheel_that_is_not_for_a_python_is_not_applicable_there(paths: Paths, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "boxlite", "0.11.0", python=">=3.12")
    with pytest.raises(NotApplicable, match=r"is not for Python 3\.10"):
        Wheel.parse(str(wheel)).fetch(paths, facts(python="3.10"), UNWATCHED)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no zip", "not a zip file"),
        ({"a/METADATA": "Name: a"}, "no item named 'a-1.0.dist-info/METADATA'"),
        ("a b c !!", "is invalid for 'requires-dist'"),
        # A line of its own in a file of requirements.
        ("x; python_version > 'a\n --index-url=https://example.org'", "is invalid for 'requires-dist'"),
        # What builds it would run on this host.
        ("x @ git+https://example.org/x ; python_version < '3'", "it requires x from git"),
    ],
)
def test_a_wheel_that_cannot_be_read_or_asks_for_nonsense_is_a_damaged_one(
    tmp_path: Path, content: bytes | dict[str, str] | str, expected: str
) -> None:
    wheel = tmp_path / "a-1.0-py3-none-any.whl"
    if isinstance(content, bytes):
        wheel.write_bytes(content)
    elif isinstance(content, str):
        wheel = make_wheel(tmp_path, "a", "1.0", content)
    else:
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in content.items():
                archive.writestr(name, text)
    with pytest.raises((ValueError, DamagedArchive), match=expected):
        wheels.read_requirements(wheel)
