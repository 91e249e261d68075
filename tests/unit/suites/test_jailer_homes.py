"""How the tests of the jailer's suite share a home of boxlite's."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import catalog

SUITE = catalog.load_catalog().suite
SHARED = SUITE.folder.parent / "_shared"
# A boxlite whose runtime keeps disks and logs in its home, and lets a home have one runtime.
BOXLITE = """
import json, pathlib
__version__ = "0.10.8"
class Any:
    def __init__(self, **given): self.__dict__.update(given)
BoxOptions = ImageRegistry = NetworkSpec = Options = SecurityOptions = AdvancedBoxOptions = Any
class Boxlite:
    def __init__(self, options):
        self.home = pathlib.Path(options.home_dir)
        for name in ("images", "logs", "db", "boxes/failed/disks"):
            (self.home / name).mkdir(parents=True)
        (self.home / "logs/boxlite.log").touch()
        (self.home / "boxes/failed/log").touch()
"""
TESTS = """
import pytest
def one(boxes, home): assert boxes.home == home == boxes.runtime.home
def two(boxes): pass
def none(): pass
def fails(boxes): assert False
def three(boxes): pass
def skipped(boxes): pytest.skip("why")
def four(boxes): pass
@pytest.fixture
def broken(boxes): raise OSError
def errs(broken): pass
def five(boxes): pass
def last(home): assert sorted(entry.name for entry in home.iterdir()) == ["boxes", "db", "images", "logs"]
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a user who ran the tests above with the suite's fixtures; beside it is what pytest wrote."""
    made = tmp_path_factory.mktemp("homes")
    user, suite = made / "user", made / "suite"
    for folder in (user, suite / "boxlite"):
        folder.mkdir(parents=True)
    for file in [SUITE.folder / "conftest.py", SUITE.folder / "boxes.py", *(SHARED / n for n in SUITE.shared)]:
        shutil.copy(file, suite)
    (suite / "boxlite/__init__.py").write_text(BOXLITE)
    (suite / "jailer_suite.py").write_text(TESTS)
    shutil.copy(SUITE.folder / "pytest.ini", suite)
    command = [sys.executable, "-B", "-m", "pytest", "-o", "python_functions=*", "--junitxml=../junit.xml"]
    environment = {"HOME": str(user), "LAB_ROOTFS": "/none", "PYTHONPATH": str(suite), "PATH": "/usr/bin"}
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
    assert "1 failed, 7 passed, 1 skipped, 1 error" in done.stdout, done.stdout
    return user


def test_tests_share_a_home_until_one_fails_and_each_says_which_it_had(user: Path) -> None:
    tree = ElementTree.parse(user.with_name("junit.xml"))
    had = {
        case.get("name"): entry.get("value")
        for case in tree.iter("testcase")
        for entry in case.iter("property")
        if entry.get("name") == "home"
    }
    first, second, third = dict.fromkeys(had.values())
    assert had == {
        **dict.fromkeys(["one", "two", "fails"], first),
        **dict.fromkeys(["three", "skipped", "four", "errs"], second),
        **dict.fromkeys(["five", "last"], third),
    }
    assert {home.name for home in user.iterdir()} == {first, second, third}


def test_of_every_home_the_logs_and_the_files_of_failed_boxes_are_kept(user: Path) -> None:
    for home in user.iterdir():
        left = {str(path.relative_to(home)) for path in home.rglob("*")}
        assert left == {"logs", "logs/boxlite.log", "boxes", "boxes/failed", "boxes/failed/log"}
