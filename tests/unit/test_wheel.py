"""The wheel that a release publishes: what is in it, and that it runs by itself, with and without the extra."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lab import __version__
from lab.base.paths import PACKAGE
from tests.builders.environments import EXTRA, make_environment

ROOT = PACKAGE.parent


def build(kind: str, source: Path, target: Path) -> Path:
    """Build an sdist or a wheel with what is installed, as the workflow of a release does."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    [file] = target.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def list_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename for entry in archive.infolist()}


def test_the_wheel_has_the_lab_with_its_definitions_and_licence_and_nothing_else(wheel: Path) -> None:
    files = list_files(wheel)
    about = f"boxlite_lab-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in files} == {"lab", about}
    assert f"{about}/licenses/LICENSE" in files
    for folder, place in (("lab", "."), ("images", "lab/_definitions"), ("cloud-init", "lab/_definitions")):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert str(Path(place) / file.relative_to(ROOT)) in files


def test_the_sdist_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    again = build("wheel", tmp_path / f"boxlite_lab-{__version__}", tmp_path / "wheel")
    assert list_files(again) == list_files(wheel)


@pytest.mark.parametrize("extra", ["", "run"])
def test_the_wheel_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path, extra: str) -> None:
    """The same program tries a release before it is published, with packages from the index."""
    python = make_environment(tmp_path / "env", ["boxlite-lab", *(() if extra else EXTRA)])
    pip = [sys.executable, "-m", "uv", "pip"]
    install = [*pip, "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)
    lab = python.with_name("lab")
    where = "import lab; print(lab.__file__)"
    found = subprocess.run(
        [python, "-P", "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout).is_relative_to(tmp_path)
    command = [str(ROOT / ".ci" / "try"), str(lab), *([extra] if extra else [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
