"""Shell completion: what is offered, and that nothing else happens."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.shell_completion import ShellComplete

from lab import catalog, cli
from lab.catalog import remedies
from lab.lane import shell
from lab.machine import leftovers
from lab.record import Status
from tests.builders.cells import cell
from tests.builders.facts import executable
from tests.builders.runs import run_of

SHELLS = ("bash", "zsh", "fish")
NEWEST, OLDEST = RUNS = ["20261125-070000", "20261124-160000"]
KNOWN = catalog.load_catalog()
BASH = "COMP_WORDS=(lab report 20261125); COMP_CWORD=2; _lab_completion lab"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs and a release in the cache; completing removes and starts nothing."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    for name in RUNS:
        (tmp_path / "state" / "runs" / name).mkdir(parents=True)
        run_of().write(tmp_path / "state" / "runs" / name)
    (tmp_path / "cache" / "wheels" / "boxlite-0.10.8-02e3de1a-cp313-x86_64").mkdir(parents=True)
    (tmp_path / "cache" / "wheels" / "boxlite-0.10.8-02e3de1a-cp313-x86_64.lock").touch()
    monkeypatch.setattr(leftovers, "reap_dead_lanes", lambda _paths: pytest.fail("a command was run"))
    return tmp_path / "state"


def offered(line: str) -> list[str]:
    """What is offered for the last word of a command line."""
    *words, last = line.split(" ")[1:]
    items = ShellComplete(cli.cli, {}, "lab", cli.COMPLETE).get_completions(words, last)
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]


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


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # Runs, the newest first, or a folder.
        (["report", f"merge {NEWEST}", "matrix --resume", "runs delete", "compare", "matrix --gate"], RUNS),
        ([f"compare {OLDEST}", "gate --against", "check --results"], RUNS),
        (["report 20261124+"], [OLDEST]),
        (["report ./elsewhere+"], ["<dir>"]),
        # Names of the catalog.
        (["matrix -g", "shell", "images build", "images pull debian-13"], list(KNOWN.guests)),
        (["matrix -g debian-13 -v userns-cl+"], ["userns-clone-off"]),
        (["shell debian-13"], list(KNOWN.variants)),
        (["matrix --set"], list(KNOWN.sets)),
        (["remedies show"], sorted(remedies.load_remedies(), key="{}.toml".format)),
        # Builds: the releases in the cache, or files.
        (["matrix --build", "matrix --gate-build"], ["0.10.8"]),
        (["shell debian-13 --build ./dist/+"], ["<file>"]),
        # Paths.
        (["check ./+", "repro ./+", f"expect {OLDEST} -o ./+", "matrix --hosts ./+"], ["<file>"]),
        (["publish -o ./+", "matrix --rootfs ./+"], ["<dir>"]),
        # Commands, options and choices.
        (["", "help"], sorted(cli.COMMANDS)),
        (["re+"], ["remedies", "report", "repro"]),
        (["--v+"], ["--version"]),
        (["completion"], list(SHELLS)),
        (["list c+"], ["causes"]),
        (["matrix --stress -g debian-13-s+"], ["debian-13-selinux"]),
    ],
)
def test_what_fits_is_offered_wherever_it_is_expected(lines: list[str], expected: list[str]) -> None:
    """A line whose last word is begun ends in `+`."""
    for line in lines:
        typed = line[:-1] if line.endswith("+") else f"{line} ".lstrip()
        assert offered(f"lab {typed}") == expected, line


def test_what_cannot_be_read_or_would_break_the_shells_protocol_is_not_offered(state: Path) -> None:
    # A flag has both names.
    assert {"--remedies", "--no-remedies"} <= set(offered("lab matrix --"))
    (state / "runs" / "2026\nplain,rm").mkdir()
    assert offered("lab runs delete 2026") == RUNS
    shutil.rmtree(state / "runs")
    assert offered("lab runs delete 2026") == ["<dir>"]
    assert offered(f"lab shell --run {OLDEST} ") == []


def test_with_a_run_its_cells_are_offered_the_failed_ones_first(state: Path) -> None:
    failed = cell("debian-13", "userns-clone-off", status=Status.FAIL, cause="userns-sysctl")
    run_of(cell(), failed).write(state / "runs" / NEWEST)
    assert offered(f"lab exec --run {NEWEST} ") == ["debian-13/userns-clone-off", "debian-13/stock"]
    assert offered("lab shell --run no-such ") == []


def test_kept_guests_are_offered_and_with_a_colon_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shell, "list_kept_guests", lambda _paths: [SimpleNamespace(name="lab-debian-13-000000")]
    )
    assert offered("lab attach lab-") == ["lab-debian-13-000000"]
    assert offered("lab copy lab-") == ["lab-debian-13-000000:"]
    assert offered("lab copy lab-debian-13-000000:log ./") == ["<file>"]


@pytest.mark.parametrize(
    ("shell", "program", "expected"),
    [
        ("bash", f'source "$1"; {BASH}; echo "${{COMPREPLY[@]}}"', NEWEST),
        ("fish", "source $argv[2]; complete --do-complete 'lab report 20261125'", NEWEST),
        # zsh completes only in an interactive line editor.
        ("zsh", 'autoload -Uz compinit; compinit -u -D; source "$1"; print ${_comps[lab]}', "_lab_completion"),
    ],
)
def test_each_shell_s_script_asks_this_program(tmp_path: Path, shell: str, program: str, expected: str) -> None:
    command = [sys.executable, "-m", "lab", "completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"{cli.COMPLETE}={shell}_complete" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script)
    lab = executable(tmp_path / "bin" / "lab", f'#!/bin/sh\nexec {sys.executable} -m lab "$@"\n')
    environment = {**os.environ, "PATH": f"{lab.parent}:{os.environ['PATH']}"}
    command = [shell, "-c", program, shell, str(tmp_path / "script")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [expected], "")
