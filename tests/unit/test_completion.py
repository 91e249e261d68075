"""Shell completion: what is offered, and that nothing else happens."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.shell_completion import ShellComplete

from lab import catalog, cli
from lab.catalog import remedies
from lab.cli import lists
from lab.lane import shell
from lab.machine import leftovers
from lab.record import Status
from lab.verdict import known_claims
from tests.builders.cells import cell
from tests.builders.runs import run_of

SHELLS = ("bash", "zsh", "fish")
PROGRAM = f'#!/bin/sh\nexec {sys.executable} -m lab "$@"\n'


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs and a release in the cache; completing removes and starts nothing."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    for name in ("20261124-160000", "20261125-070000"):
        (tmp_path / "state" / "runs" / name).mkdir(parents=True)
        run_of().write(tmp_path / "state" / "runs" / name)
    (tmp_path / "cache" / "wheels" / "boxlite-0.10.8-02e3de1a-cp313").mkdir(parents=True)
    (tmp_path / "cache" / "wheels" / "boxlite-0.10.8-02e3de1a-cp313.lock").touch()
    monkeypatch.setattr(leftovers, "reap", lambda _paths: pytest.fail("a command was run"))
    return tmp_path / "state"


def offered(line: str) -> list[str]:
    """What is offered for the last word of a command line."""
    *words, last = line.split(" ")[1:]
    found = ShellComplete(cli.cli, {}, "lab", cli.COMPLETE).get_completions(words, last)
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in found]


@pytest.mark.parametrize(
    "line",
    ["lab re", "lab matrix -g ", "lab matrix --", "lab shell debian-13 ", "lab doctor --set ", "lab report "],
)
def test_a_press_of_tab_imports_no_command_and_nothing_that_takes_long(line: str) -> None:
    words, last = line.split(" ")[1:-1], line.split(" ")[-1]
    code = f"""
import sys
from click.shell_completion import ShellComplete
from lab import cli
assert ShellComplete(cli.cli, {{}}, "lab", cli.COMPLETE).get_completions({words}, {last!r})
print(sorted({{"pydantic", "rich", "libvirt", "paramiko", "lab.catalog", "lab.run"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_runs_are_offered_the_newest_first_wherever_a_run_is_asked_for() -> None:
    both = ["20261125-070000", "20261124-160000"]
    lines = ("report", "merge 20261125-070000", "matrix --resume", "runs delete", "compare", "matrix --gate")
    for words in (*lines, "compare 20261124-160000", "gate --against", "check --results"):
        assert offered(f"lab {words} ") == both, words
    assert offered("lab report 20261124") == ["20261124-160000"]
    assert offered("lab report ./elsewhere") == ["<dir>"]


def test_names_of_the_catalog_are_offered() -> None:
    known = catalog.load()
    for line in ("lab matrix -g ", "lab shell ", "lab images build ", "lab images pull debian-13 "):
        assert offered(line) == list(known.guests), line
    assert offered("lab matrix -g debian-13 -v userns-cl") == ["userns-clone-off"]
    assert offered("lab shell debian-13 ") == list(known.variants)
    assert offered("lab matrix --set ") == list(known.sets)
    assert sorted(offered("lab remedies show ")) == sorted(remedies.load())
    assert offered("lab report 20261124-160000 --claims ") == list(known_claims.REPORTS)


def test_builds_are_the_releases_in_the_cache_or_files() -> None:
    assert offered("lab matrix --build ") == ["0.10.8"]
    assert offered("lab shell debian-13 --build ./dist/") == ["<file>"]
    assert offered("lab matrix --gate-build ") == ["0.10.8"]


def test_files_and_folders_are_offered_where_a_path_is_asked_for() -> None:
    for line in ("lab check ./", "lab repro ./", "lab expect 20261124-160000 -o ./", "lab matrix --hosts ./"):
        assert offered(line) == ["<file>"], line
    for line in ("lab publish -o ./", "lab matrix --rootfs ./"):
        assert offered(line) == ["<dir>"], line


def test_commands_options_and_choices_are_offered() -> None:
    assert offered("lab ") == sorted(cli.COMMANDS)
    assert offered("lab re") == ["remedies", "report", "repro"]
    assert offered("lab --v") == ["--version"]
    assert "--json" in offered("lab list guests --")
    assert offered("lab completion ") == list(SHELLS)
    assert offered("lab list c") == ["causes", "cells"]
    assert {"--remedies", "--no-remedies"} <= set(offered("lab matrix --"))
    assert offered("lab matrix --stress -g debian-13-s") == ["debian-13-selinux"]


def test_what_cannot_be_read_offers_nothing(state: Path) -> None:
    shutil.rmtree(state / "runs")
    assert offered("lab runs delete 2026") == ["<dir>"]
    assert offered("lab shell --run 20261124-160000 ") == []


def test_a_name_that_would_break_the_shells_protocol_is_not_offered(state: Path) -> None:
    (state / "runs" / "2026\nplain,rm").mkdir()
    assert offered("lab runs delete 2026") == ["20261125-070000", "20261124-160000"]


def test_with_a_run_its_cells_are_offered_the_failed_ones_first(state: Path) -> None:
    failed = cell("debian-13", "userns-clone-off", status=Status.FAIL, cause="userns-sysctl")
    run_of(cell(), failed).write(state / "runs" / "20261125-070000")
    assert offered("lab exec --run 20261125-070000 ") == ["debian-13/userns-clone-off", "debian-13/stock"]
    assert offered("lab shell --run no-such ") == []


def test_kept_guests_are_offered_and_with_a_colon_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "all_kept", lambda _paths: [SimpleNamespace(name="lab-debian-13-000000")])
    assert offered("lab attach lab-") == ["lab-debian-13-000000"]
    assert offered("lab copy lab-") == ["lab-debian-13-000000:"]
    assert offered("lab copy lab-debian-13-000000:log ./") == ["<file>"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_that_asks_this_program(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = click.Context(cli.cli, info_name="lab")
    with context, click.Context(lists.completion_command, parent=context, info_name="completion") as own:
        own.invoke(lists.completion_command, shell=shell)
    script = capsys.readouterr().out
    assert f"{cli.COMPLETE}={shell}_complete" in script


def script_of(shell: str) -> str:
    command = [sys.executable, "-m", "lab", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def in_shell(shell: str, program: str, tmp_path: Path) -> list[str]:
    """Run a program in a shell that has read its completion script and finds `lab` on PATH."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lab").write_text(PROGRAM)
    (tmp_path / "bin" / "lab").chmod(0o755)
    (tmp_path / "script").write_text(script_of(shell))
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = [shell, "-c", program, shell, str(tmp_path / "script")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_bash_completes(tmp_path: Path) -> None:
    words = "COMP_WORDS=(lab report 20261125); COMP_CWORD=2"
    program = f'source "$1"; {words}; _lab_completion lab; echo "${{COMPREPLY[@]}}"'
    assert in_shell("bash", program, tmp_path) == ["20261125-070000"]


def test_fish_completes(tmp_path: Path) -> None:
    program = "source $argv[2]; complete --do-complete 'lab report 20261125'"
    assert in_shell("fish", program, tmp_path) == ["20261125-070000"]


def test_zsh_reads_its_script(tmp_path: Path) -> None:
    # zsh completes only in an interactive line editor.
    program = 'autoload -Uz compinit; compinit -u -D; source "$1"; print ${_comps[lab]}'
    assert in_shell("zsh", program, tmp_path) == ["_lab_completion"]
