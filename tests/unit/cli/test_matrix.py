"""`lab matrix`: what it runs, what it prints, and what it leaves in the run's folder."""

import re
import shlex
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from lab.base.errors import LabError
from lab.base.options import Group
from lab.builds import wheels
from lab.cli import output
from lab.cli.matrix import matrix_command
from lab.cli.options import GroupedOption
from lab.record import RunResult
from tests.builders.processes import ONE_CELL, RunLab, run_main

pytestmark = pytest.mark.usefixtures("releases")


def test_each_build_is_run_once_and_has_a_column(home: Path, passing: list[str], run_lab: RunLab) -> None:
    # A release that there is not is refused before anything is started.
    assert "there is no release 99.0" in run_lab(2, *ONE_CELL, "--build", "0.10.8", "--build", "99.0")
    assert (passing, list(home.glob("state/runs/*"))) == ([], [])
    builds = ["--build", "0.10.8", "--build", "0.10.7", "--build", "0.10.8"]
    out = run_lab(0, *ONE_CELL, *builds)
    assert passing == ["debian-13/stock/0.10.8", "debian-13/stock/0.10.7"]
    assert out.startswith("boxlite 0.10.8, 0.10.7, 2 cells, run ")
    [header] = [line.split() for line in out.splitlines() if line.startswith("guest ")]
    assert header == ["guest", "kernel", "stock", "0.10.8", "stock", "0.10.7"]


def test_a_run_says_where_everything_is(
    home: Path, tmp_path: Path, passing: list[str], run_lab: RunLab
) -> None:
    # A folder's name is no markup.
    folder = tmp_path / "a [bold] [run]"
    words = [*ONE_CELL, "--build", "0.10.8", "--repeat", "2", "--retries", "0", "-o", str(folder)]
    printed = run_lab(0, *words)
    assert f"1 cells, run {folder}\n" in printed
    assert printed.endswith(f"run: {folder} (results.json, matrix.md, run.log)\n")
    run = RunResult.read(folder)
    assert (run.run.options.repeat, run.run.options.retries) == (2, 0)
    assert run.run.command == shlex.join(["lab", *words])
    assert "| debian-13 | - | pass |" in (folder / "matrix.md").read_text()
    assert "debian-13 stock 0.10.8: pass\n" in (folder / "run.log").read_text()


def store_release(home: Path, version: str) -> None:
    folder = home / f"cache/wheels/boxlite-{version}-02e3de1a-cp313-x86_64"
    folder.mkdir(parents=True)
    (folder / f"boxlite-{version}-cp313-cp313-manylinux_2_28_x86_64.whl").touch()
    (folder / "pytest-9.0.0-py3-none-any.whl").touch()


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index that cannot be asked."""

    def ask() -> NoReturn:
        raise LabError("the package index was asked")

    monkeypatch.setattr(wheels, "list_releases", ask)


@pytest.mark.usefixtures("no_index")
def test_offline_the_newest_cached_release_is_tested(home: Path, passing: list[str], run_lab: RunLab) -> None:
    for version in ("0.9.7", "0.10.8", "0.10.10", "0.11.0rc1"):
        store_release(home, version)
    printed = run_lab(0, *ONE_CELL, "--offline")
    assert passing == ["debian-13/stock/0.10.10"]
    told = "--offline: 0.10.10 is the newest release in the cache; no package index was asked\n"
    assert printed.startswith(f"{told}boxlite 0.10.10, ")
    # A range stands for a release of the cache, too.
    printed = run_lab(0, *ONE_CELL, "--offline", "--build", "0.9.x")
    told = "--offline: 0.9.x is 0.9.7, by the releases in the cache; no package index was asked\n"
    assert (printed.startswith(told), passing[1:]) == (True, ["debian-13/stock/0.9.7"])
    assert " --build 0.9.7" in run_lab(0, *ONE_CELL, "--offline", "--build", "0.9.x", "--list")


def shown_on(is_terminal: bool, monkeypatch: pytest.MonkeyPatch, *more: str) -> str:
    """What a run shows on a terminal, or elsewhere."""
    out = StringIO()
    console = Console(file=out, width=240, force_terminal=is_terminal, color_system=None)
    monkeypatch.setattr(output, "get_console", lambda: console)
    assert run_main(monkeypatch, *ONE_CELL, "--build", "0.10.8", *more) == 0
    return out.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_with_quiet_the_result_alone_is_printed_and_the_log_has_all(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    screen = shown_on(is_terminal, monkeypatch, "--quiet")
    [folder] = home.glob("state/runs/*")
    assert [line.split() for line in screen.splitlines() if line] == [
        ["guest", "kernel", "stock"],
        ["debian-13", "-", "pass"],
        ["1", "pass"],
        ["run:", str(folder), "(results.json,", "matrix.md,", "run.log)"],
    ]
    log = (folder / "run.log").read_text()
    assert all(text in log for text in ("running the suite", "stock 0.10.8: pass", "guests are not run"))


@pytest.mark.parametrize(
    ("is_terminal", "more", "lines"),
    [(False, [], True), (False, ["--verbose"], True), (True, ["--verbose"], True), (True, [], False)],
)
def test_without_a_terminal_and_with_verbose_each_step_is_a_line(
    home: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    more: list[str],
    lines: bool,
) -> None:
    screen = shown_on(is_terminal, monkeypatch, *more)
    steps = [line.partition(" s] ")[2] for line in screen.splitlines() if line.startswith("[ ")]
    expected = [
        "debian-13: running the suite",
        "1/1 debian-13 stock 0.10.8: pass",
        "note: guests are not run at all",
    ]
    assert steps == (expected if lines else [])
    assert ("1 of 1 cells" in screen) is not lines


def test_a_cold_run_says_that_it_tries_nothing(home: Path, passing: list[str], run_lab: RunLab) -> None:
    told = "--cold makes no forks, so no remedies and no experiments are tried"
    for words in ([], ["--cold"]):
        printed = run_lab(0, *ONE_CELL, "--build", "0.10.8", *words)
        assert (told in printed) is bool(words)


def test_the_help_shows_each_option_of_the_request_under_its_heading(run_lab: RunLab) -> None:
    printed = run_lab(0, "matrix", "--help")
    headings: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if match := re.fullmatch(r"(\S.*):", line):
            headings[match[1]] = []
        elif headings and (match := re.match(r"  (--?[a-z-]+)", line)):
            list(headings.values())[-1].append(match[1])
    assert list(headings) == list(Group)
    options = [option for option in matrix_command.params if isinstance(option, GroupedOption)]
    for group in Group:
        flags = [option.opts[0] for option in options if option.group is group]
        assert headings[group] == (flags or ["-h"])
