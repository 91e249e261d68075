"""Whoever reads results needs no libvirt: an environment without the libraries of the extra `run`."""

import os
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import PACKAGE
from lab.cli import COMMANDS, RUN_LIBRARIES
from tests.builders.cells import cell
from tests.builders.environments import EXTRA, make_environment
from tests.builders.report_texts import PROBE
from tests.builders.runs import run_of, runs_of_shards

# Each with the exit status that it has here, and some words that it prints.
READING = {
    "report a": (0, "2 pass"),
    "compare a b": (0, "unchanged"),
    "gate a --against b": (0, "passed"),
    "baseline a -o baseline.toml": (0, "2 cells of boxlite"),
    "expect a -o expected.toml": (0, "nothing to change"),
    "merge shards/1 shards/2 -o merged": (0, "pass"),
    "publish a -o site": (0, "site: "),
    "check probe.txt --results a": (1, "blocked"),
    "probe": (0, "#!/bin/sh"),
    "repro report.txt --text-only": (0, "possible"),
    "runs": (0, "as expected"),
    "list guests": (0, "debian-13"),
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has all that this one has, but for the extra."""
    return make_environment(tmp_path_factory.mktemp("reading") / "venv", EXTRA)


def test_the_environment_lacks_what_only_running_needs(python: Path) -> None:
    program = f"from importlib.util import find_spec as find\nprint(list(filter(find, {RUN_LIBRARIES})))"
    found = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        folder = tmp_path / "home/state/runs" / name
        folder.mkdir(parents=True)
        run_of(cell(), cell(variant="podman")).write(folder)
    for number, (folder, _) in enumerate(runs_of_shards(tmp_path / "shards"), 1):
        folder.rename(tmp_path / "shards" / str(number))
    (tmp_path / "report.txt").write_text("Debian 13\n\nbwrap: setting up uid map: Permission denied\n")
    (tmp_path / "probe.txt").write_text(PROBE)
    return tmp_path


def run_lab(python: Path, home: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LAB_HOME": str(home / "home"), "PYTHONPATH": str(PACKAGE.parent)}
    words = [str(python), "-m", "lab", *command.split()]
    return subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", READING)
def test_results_are_read_without_what_runs_them(python: Path, home: Path, command: str) -> None:
    status, words = READING[command]
    done = run_lab(python, home, command)
    assert (done.returncode, done.stderr.count("Traceback")) == (status, 0), done.stderr
    assert words in done.stdout


def test_each_command_reads_or_says_what_to_install(python: Path, home: Path) -> None:
    reading = {command.split()[0] for command in READING} | {"completion", "help", "remedies"}
    running = {"doctor": "", "clean": "", "images": "list", "attach": "", "copy": "a b", "exec": "debian-13"}
    running |= {"shell": "debian-13", "matrix": "--list"}
    assert reading | running.keys() == COMMANDS.keys()
    for name, words in running.items():
        done = run_lab(python, home, f"{name} {words}")
        needed = f"lab: lab {name} runs machines, and "
        assert (done.returncode, done.stdout) == (3, ""), name
        assert done.stderr.startswith(needed), done.stderr
        assert done.stderr.endswith("\n  next: pip install 'boxlite-lab[run]', or ./setup.sh in a checkout\n")
