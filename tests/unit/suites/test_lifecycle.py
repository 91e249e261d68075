"""What the suite `lifecycle` calls the remains of a box, and which tests it has."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.catalog import Suite, load_suite
from lab.record import Needs

SUITE = load_suite("lifecycle")
BOXLITE = """
__version__ = "0.10.8"
class Any:
    def __init__(self, **given): self.__dict__.update(given)
BoxOptions = Boxlite = ImageRegistry = NetworkSpec = Options = SecurityOptions = AdvancedBoxOptions = Any
"""
# A process whose command line bears the ID of a box, and which ends with its input.
BEGIN = """
import outside, pathlib, subprocess, sys
import traced_boxes as lifecycle
lifecycle.END_SECONDS = 0.2
home = pathlib.Path(sys.argv[1])
kept = {}
boxes = lifecycle.TracedBoxes(home, "/none", None, kept.__setitem__)
pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
living = subprocess.Popen(["sh", "-c", "echo; read line", "Bx7"], **pipes)
living.stdout.readline()  # Its command line is empty for a moment.
"""


def put_suite(folder: Path, suite: Suite) -> Path:
    """Put a suite's files as a guest has them, with a boxlite that does nothing."""
    (folder / "boxlite").mkdir(parents=True)
    (folder / "boxlite/__init__.py").write_text(BOXLITE)
    for name, file in suite.files.items():
        shutil.copy(file, folder / name)
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return put_suite(tmp_path / "suite", SUITE)


def run_program(suite: Path, program: str, home: Path) -> list[str]:
    """What a program prints that begins as above. Its own command line bears no ID."""
    (suite / "program.py").write_text(BEGIN + program)
    return run_python(suite, "program.py", str(home))


def run_python(suite: Path, *words: str) -> list[str]:
    environment = {"HOME": str(suite), "LAB_ROOTFS": "/none", "PYTHONPATH": str(suite), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-B", *words]
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["lifecycle", "volumes", "reboot"])
def test_every_test_is_run(tmp_path: Path, name: str) -> None:
    suite = load_suite(name)
    folder = put_suite(tmp_path / name, suite)
    lines = run_python(folder, "-m", "pytest", "-q", "--collect-only", "-p", "no:reportlog")
    assert [line.partition("::")[2] for line in lines if "::" in line] == list(suite.tests)


def test_what_needs_a_control_group_comes_last() -> None:
    needs = list(SUITE.tests.values())
    first = needs.index(Needs.CGROUP)
    assert set(needs[first:]) == {Needs.CGROUP}
    assert SUITE.tests[SUITE.control] is Needs.BOX


def test_what_is_left_of_a_box_is_named_until_it_is_gone(suite: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("boxes/Bx7", "logs"):
        (home / name).mkdir(parents=True)
    (home / "logs/Bx7.log").touch()
    end = """
print(boxes.list_remains("Bx7"))
boxes.record_groups("Bx7")
print(kept["groups"]["box"] == [kept["groups"]["caller"]])
(home / "boxes/Bx7").rmdir()
living.stdin.close()
print(boxes.list_remains("Bx7"), living.wait() is not None)
"""
    left, is_joined, nothing = run_program(suite, end, home)
    assert left == f"['sh', '{home}/boxes/Bx7']"
    assert (is_joined, nothing) == ("True", "[] True")


def test_no_box_outlives_its_test(suite: Path, tmp_path: Path) -> None:
    end = 'boxes.ids.append("Bx7"); boxes.end(); print(living.wait())'
    assert run_program(suite, end, tmp_path) == ["-9"]
