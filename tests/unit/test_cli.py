"""The command line as users have it: a process, its output, its exit status."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock
from rich.console import Console

from lab import catalog, causes, cli, remedies
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.builds import pip
from lab.builds.kinds.wheel import Wheel
from lab.cli import common
from lab.images import store
from lab.lane import shell
from lab.machine import leftovers
from lab.record import ExperimentPolicy, RunOptions, RunResult, Status
from lab.run import scheduler
from lab.run.journal import LOCK, Journal
from tests.unit.examples import cell, run_of

ONE_CELL = ["matrix", "-g", "debian-13", "-v", "stock"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these labs keep their things; nobody has made it yet."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package index is asked: every release is there but 99.0."""

    def check(build: Wheel, _paths: object) -> None:
        if build.version == "99.0":
            raise UsageError("there is no release 99.0")

    monkeypatch.setattr(Wheel, "check", check)


def test_a_release_that_there_is_not_is_refused_before_anything_is_started(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, "--build", "0.10.8", "--build", "99.0") == 2
    assert "there is no release 99.0" in capsys.readouterr().err
    assert (passing, list(home.glob("state/runs/*"))) == ([], [])


def lab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["matrix", "-g", "debain-13"], 2, "no guest is called 'debain-13'\n  next: did you mean debian-13"),
        (["matrix", "-v", "stok"], 2, "no variant is called 'stok'\n  next: did you mean stock"),
        (["matrix", "--set", "quik"], 2, "no set is called 'quik'\n  next: did you mean quick"),
        ([*ONE_CELL, "--build", "latest!"], 2, "--build latest!: neither a version nor"),
        ([*ONE_CELL, "--rootfs", "/nowhere"], 2, "--rootfs /nowhere: not an OCI image layout"),
        (
            [*ONE_CELL, "--build", "0.10.8", "--cold", "--remedies"],
            2,
            "--remedies and --cold contradict each other",
        ),
        (
            [*ONE_CELL, "--build", "0.10.8", "--cold", "--experiment"],
            2,
            "--experiment and --cold contradict each other: each change is tried in a fork of its cell",
        ),
        (
            ["remedies", "show", "jailer-of"],
            2,
            "no remedy is called 'jailer-of'\n  next: did you mean jailer-off",
        ),
        (
            ["remedies", "show", "jailer-off", "--script"],
            2,
            "jailer-off changes how boxlite is run, not the host",
        ),
        (["report", "yesterday"], 2, "no run 'yesterday'"),
        (["matrix", "--resume", "yesterday"], 2, "no run 'yesterday'"),
        (["merge", "yesterday"], 2, "no run 'yesterday'"),
        (["merge"], 2, "Missing argument 'RUN...'"),
        (
            ["--connect", "test+bogus:///x", *ONE_CELL, "--build", "0.10.8"],
            3,
            "cannot connect to test+bogus:///x",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_started(
    home: Path, arguments: list[str], status: int, said: str
) -> None:
    done = lab(*arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "state" / "lanes").exists()
    assert not list(home.glob("state/runs/*"))


def test_without_libvirt_it_is_said_how_to_start_it(home: Path) -> None:
    done = lab("--connect", "test+bogus:///x", "doctor")
    assert done.returncode == 3
    line = next(line for line in done.stdout.splitlines() if line.startswith("libvirt"))
    assert "broken" in line
    assert "-> " in done.stdout.split(line)[1].splitlines()[1]
    assert done.stderr == ""


DEAD_LANE = "could not remove the domain lab-debian-13-abc123 of a dead run"


@pytest.fixture
def stuck(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead run's machine that libvirt does not remove."""

    def refuse(_paths: object) -> NoReturn:
        raise LabError(DEAD_LANE)

    monkeypatch.setattr(leftovers, "reap", refuse)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "guests"],
        ["runs"],
        ["runs", "delete", "--older-than", "1"],
        ["images", "list"],
        ["remedies"],
        ["probe"],
        ["completion", "bash"],
        [*ONE_CELL, "--list"],
        ["--connect", "test:///default", "doctor"],
    ],
    ids=shlex.join,
)
def test_a_command_that_uses_no_machine_works_where_libvirt_does_not(
    stuck: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    run_main(monkeypatch, *arguments)
    printed = capsys.readouterr()
    assert (DEAD_LANE in printed.err, bool(printed.out)) == (False, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [*ONE_CELL, "--build", "0.10.8"],
        ["shell", "debian-13", "--build", "0.10.8"],
        ["exec", "debian-13", "--build", "0.10.8", "--keep", "--", "true"],
        ["attach", "--list"],
        ["copy", "lab-debian-13-abc123:log", "."],
        ["images", "prune"],
        ["clean"],
    ],
    ids=shlex.join,
)
def test_a_command_that_uses_or_counts_machines_first_removes_those_of_dead_labs(
    stuck: None,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    assert run_main(monkeypatch, *arguments) == 3
    assert DEAD_LANE in capsys.readouterr().err
    assert not list(home.glob("state/runs/*"))


def test_a_folder_with_a_run_in_it_is_refused(home: Path, tmp_path: Path) -> None:
    before = run_of(cell()).write(tmp_path).read_text()
    done = lab(*ONE_CELL, "--build", "0.10.8", "-o", tmp_path)
    assert done.returncode == 2
    assert f"-o {tmp_path}: there is a run in it already" in done.stderr
    assert (tmp_path / "results.json").read_text() == before


def test_list_explains_the_causes(home: Path) -> None:
    lines = lab("list", "causes").stdout.splitlines()
    assert lines == [f"{name}: {cause.explanation}" for name, cause in causes.known().items()]


def test_list_shows_the_cells_and_makes_nothing(home: Path) -> None:
    done = lab("matrix", "--set", "quick", "-v", "max-userns-zero", "--list")
    assert done.returncode == 0
    lines = [line.split(maxsplit=4) for line in done.stdout.splitlines()[1:]]
    assert [line[:2] for line in lines] == [
        [guest, "max-userns-zero"] for guest in ("debian-12", "debian-13", "debian-13-backports")
    ]
    assert "lab matrix -g debian-12 -v max-userns-zero" in done.stdout
    assert not home.exists()


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit status of a command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["lab", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


TWO_CELLS = ["matrix", "-g", "debian-13", "-v", "stock", "-v", "max-userns-zero"]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/0", "1", "-1/3", "one/three", ""])
def test_a_shard_that_there_is_not_is_refused(
    home: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shard: str,
) -> None:
    for more in ([], ["--list"]):
        assert run_main(monkeypatch, *TWO_CELLS, "--build", "0.10.8", "--shard", shard, *more) == 2
        said = capsys.readouterr()
        assert f"--shard {shard}: not of the form I/N" in said.err
        assert said.out == ""
    assert (passing, list(home.glob("state/runs/*"))) == ([], [])


def test_a_shard_with_nothing_to_do_is_refused(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--list"]):
        assert run_main(monkeypatch, *TWO_CELLS, "--build", "0.10.8", "--shard", "9/9", *more) == 2
        assert "--shard 9/9: the plan has 2 cells, too few for so many shards" in capsys.readouterr().err
    assert (passing, list(home.glob("state/runs/*"))) == ([], [])


def listed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]


def test_the_lists_of_all_shards_are_the_list_of_the_plan(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "matrix", "--list") == 0
    plan = listed(capsys)
    shards = []
    for number in (1, 2, 3):
        assert run_main(monkeypatch, "matrix", "--list", "--shard", f"{number}/3") == 0
        shards.append(listed(capsys))
    assert all(shards)
    assert [line for shard in shards for line in shard] == plan
    assert not home.exists()


def test_a_shard_s_list_is_what_the_shard_runs_of_several_builds(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*TWO_CELLS, "--build", "0.10.7", "--build", "0.10.8", "--shard", "1/4"]
    assert run_main(monkeypatch, *line, "--list") == 0
    shown = listed(capsys)
    run_main(monkeypatch, *line)
    assert passing == ["debian-13/stock/0.10.7"]
    assert shown == [["debian-13", "stock"]]


def rows_listed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]


def test_a_list_tells_builds_apart_and_runs_each_cell_as_the_run_would(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, "--build", "0.10.0", "--build", "0.10.8", "--list") == 0
    again = "lab matrix -g debian-13 -v stock --build"
    assert rows_listed(capsys) == [
        ["guest", "variant", "build", "expected", "again"],
        ["debian-13", "stock", "0.10.0", "pass", f"{again} 0.10.0"],
        ["debian-13", "stock", "0.10.8", "pass", f"{again} 0.10.8"],
    ]
    assert run_main(monkeypatch, "matrix", "--set", "quick", "-g", "debian-13", "-v", "stock", "--list") == 0
    assert rows_listed(capsys)[1][-1] == "lab matrix -g debian-13 -v stock --no-remedies"


def test_a_list_refuses_what_a_run_would(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, "--rootfs", "/nope", "--list") == 2
    assert "--rootfs /nope: not an OCI image layout" in capsys.readouterr().err


def test_the_list_of_a_run_that_is_resumed_is_what_is_left_of_it(
    half_run: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
    assert run_main(monkeypatch, "matrix", "--resume", str(half_run), "--list") == 0
    [[guest, variant, _, again]] = rows_listed(capsys)[1:]
    assert (guest, variant) == ("debian-13", "max-userns-zero")
    assert again == RunResult.read(half_run).cells[1].rerun
    assert (passing, {file: file.read_bytes() for file in before}) == ([], before)


@pytest.mark.parametrize("folder", ["a-file", "a-file/run"])
def test_a_folder_that_cannot_be_made_is_refused(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
) -> None:
    # Any libvirt will do: the run asks for one before it makes its folder, and this host may run none.
    monkeypatch.setenv("LAB_CONNECT", "test:///default")
    (tmp_path / "a-file").touch()
    for number in (1, 2):
        line = [*TWO_CELLS, "--build", "0.10.8", "--shard", f"{number}/2", "-o", str(tmp_path / str(number))]
        with monkeypatch.context() as patched:
            interrupt(patched)
            run_main(patched, *line)
    capsys.readouterr()
    parts = [str(tmp_path / "1"), str(tmp_path / "2")]
    for line in (["merge", *parts], [*ONE_CELL, "--build", "0.10.8"]):
        assert run_main(monkeypatch, *line, "-o", str(tmp_path / folder)) == 2
        said = capsys.readouterr().err
        assert f"lab: cannot create the folder {tmp_path / folder}: " in said
        assert "\n  next: choose another folder with -o DIR\n" in said


@pytest.mark.parametrize("run", [".", "./"])
def test_a_point_is_the_folder_one_is_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str
) -> None:
    (home / "state" / "runs").mkdir(parents=True)
    run_of(cell()).write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, "report", run) == 0
    assert "1 pass" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["guests", "variants", "sets", "suites", "cells", "causes"])
def test_no_line_of_a_list_is_cut_on_a_pipe(home: Path, what: str) -> None:
    done = lab("list", what)
    assert done.returncode == 0
    assert "\u2026" not in done.stdout
    if what == "guests":
        lines = [re.split("  +", line) for line in done.stdout.splitlines()]
        known = catalog.load().guests
        assert lines == [[name, guest.title, guest.image.origin] for name, guest in known.items()]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_rows_are_aligned_and_neither_cut_nor_folded_however_narrow_the_console_is(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    out = StringIO()
    narrow = Console(file=out, width=20, force_terminal=is_terminal, color_system=None, highlight=False)
    monkeypatch.setattr(common, "console", narrow)
    common.print_rows([["name", "what it is"], ["[bold]a", "x" * 40 + " " + "語" * 20]])
    assert out.getvalue() == f"name     what it is\n[bold]a  {'x' * 40} {'語' * 20}\n"


@pytest.mark.parametrize(("status", "expected"), [(Status.PASS, 0), (Status.FAIL, 1), (Status.ERROR, 3)])
def test_a_report_ends_with_the_status_of_its_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, status: Status, expected: int
) -> None:
    folder = home / "state" / "runs" / "20261124-160000"
    folder.mkdir(parents=True)
    run_of(cell(status=status)).write(folder)
    assert run_main(monkeypatch, "report", "20261124-160000") == expected
    assert run_main(monkeypatch, "report", str(folder)) == expected


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("json", '{\n  "schema": 2'),
        ("markdown", "# boxlite"),
        ("table", "\nguest"),
        ("html", "<!doctype html>"),
        ("junit", "<?xml"),
        ("github", "# boxlite"),
    ],
)
def test_a_report_has_the_format_that_was_asked_for(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    begins: str,
) -> None:
    run_of(cell()).write(tmp_path)
    run_main(monkeypatch, "report", str(tmp_path), "--format", kind)
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["--claims", "issue-468"], "# Bug report issue-468, judged by run 20261124-160000"),
        (["--upstream"], "# What boxlite  gets wrong about its own failures, in run 20261124-160000"),
    ],
)
def test_a_report_of_claims_or_for_upstream_ends_with_the_status_of_its_run(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    begins: str,
) -> None:
    run_of(cell(), cell(guest="ubuntu-24.04", status=Status.NOT_RUN, reason="no image")).write(tmp_path)
    assert run_main(monkeypatch, "report", str(tmp_path), *words) == 3
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--claims", "issue-46"], "no report is called 'issue-46'\n  next: did you mean issue-468?"),
        (["--claims", "issue-468", "--upstream"], "are different reports\n  next: ask for one of them"),
        (["--upstream", "--format", "table"], "are different reports"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    run_of(cell()).write(tmp_path)
    assert run_main(monkeypatch, "report", str(tmp_path), *words) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_run_says_the_nearest(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "state" / "runs" / "20261124-160000").mkdir(parents=True)
    assert run_main(monkeypatch, "report", "20261124-16000") == 2
    assert "did you mean 20261124-160000?" in capsys.readouterr().err
    # No file system has a folder of this name.
    assert run_main(monkeypatch, "report", "x" * 5000) == 2
    assert "no run is called 'xxx" in capsys.readouterr().err


def test_results_that_cannot_be_read_are_no_traceback(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"schema": 9}))
    assert run_main(monkeypatch, "report", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "results.json is no record that this lab can read: schema: " in said
    assert "\n  next: name another run" in said


def test_a_shell_that_makes_no_sense_says_why(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise NotApplicable("AppArmor 3.0.8 does not mediate user namespaces")

    monkeypatch.setattr(shell, "ready", refuse)
    status = run_main(monkeypatch, "shell", "debian-12", "apparmor-userns-deny", "--build", "0.10.8")
    assert status not in (0, None)
    assert "AppArmor 3.0.8 does not mediate user namespaces" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", [["shell", "debian-13", "--build", "0.10.8"], ["images", "build", "debian-13"]]
)
def test_what_is_going_on_is_no_markup(home: Path, monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    def say_and_end(*arguments: Any, **_: Any) -> NoReturn:
        say: Callable[[str], None] = arguments[-1]
        say("QEMU's snapshot-load: no such device [/machine]")
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "ready", say_and_end)
    monkeypatch.setattr(store, "ensure", say_and_end)
    assert run_main(monkeypatch, *line) == common.INTERRUPTED


def test_an_interrupt_is_said_and_ends_with_the_shell_s_status(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "ready", interrupt)
    assert run_main(monkeypatch, "shell", "debian-13", "--build", "0.10.8") == 130
    assert "interrupted" in capsys.readouterr().err


# -- runs whose cells pass at once


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs without guests, of which each cell passes; the names of the cells that were run."""
    ran: list[str] = []

    class Passing(scheduler.Scheduler):
        def run(self) -> RunResult:
            self.folder.mkdir(parents=True, exist_ok=True)
            journal = Journal(self.folder, self.cells, self.info, self.kept)
            for each in self.cells:
                if not journal.is_decided(each):
                    self.observer.lane(each.guest.name, "running the suite")
                    self.observer.cell(journal.decide(each, each.result(Status.PASS)))
                    ran.append(each.name)
            self.observer.note("guests are not run at all")
            return journal.finish(interrupted=False)

    monkeypatch.setattr(scheduler, "Scheduler", Passing)
    return ran


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on runs are interrupted after their first cell."""

    class Interrupted(scheduler.Scheduler):
        def run(self) -> RunResult:
            self.folder.mkdir(parents=True, exist_ok=True)
            journal = Journal(self.folder, self.cells, self.info, self.kept)
            self.observer.cell(journal.decide(self.cells[0], self.cells[0].result(Status.XPASS)))
            return journal.finish(interrupted=True)

    monkeypatch.setattr(scheduler, "Scheduler", Interrupted)


def test_each_build_is_run_once_and_has_a_column(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--build", "0.10.8", "--build", "0.10.7", "--build", "0.10.8"]
    assert run_main(monkeypatch, *ONE_CELL, *wanted) == 0
    assert passing == ["debian-13/stock/0.10.8", "debian-13/stock/0.10.7"]
    out = capsys.readouterr().out
    assert out.startswith("boxlite 0.10.8, 0.10.7, 2 cells, run ")
    [header] = [line.split() for line in out.splitlines() if line.startswith("guest ")]
    assert header == ["guest", "kernel", "stock", "0.10.8", "stock", "0.10.7"]


def test_a_run_says_where_everything_is(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, "--build", "0.10.8", "--repeat", "2", "--retries", "0") == 0
    [folder] = home.glob("state/runs/*")
    assert capsys.readouterr().out.endswith(f"run: {folder} (results.json, matrix.md, run.log)\n")
    run = RunResult.read(folder)
    assert (run.run.options.repeat, run.run.options.retries) == (2, 0)
    assert run.run.command == shlex.join(
        ["lab", *ONE_CELL, "--build", "0.10.8", "--repeat", "2", "--retries", "0"]
    )
    assert "| debian-13 | - | pass |" in (folder / "matrix.md").read_text()
    assert "debian-13 stock 0.10.8: pass\n" in (folder / "run.log").read_text()


def test_a_folder_s_name_is_no_markup(
    home: Path,
    tmp_path: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "a [bold] [run]"
    assert run_main(monkeypatch, *ONE_CELL, "--build", "0.10.8", "-o", str(folder)) == 0
    out = capsys.readouterr().out
    assert f"1 cells, run {folder}\n" in out
    assert f"run: {folder} (results.json" in out


def run_on(console: Console, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr(common, "console", console)
    assert run_main(monkeypatch, *ONE_CELL, "--build", "0.10.8", *more) == 0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_with_quiet_the_result_alone_is_printed_and_the_log_has_all(
    home: Path, passing: list[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    out = StringIO()
    run_on(Console(file=out, width=240, force_terminal=is_terminal, color_system=None), monkeypatch, "--quiet")
    [folder] = home.glob("state/runs/*")
    assert [line.split() for line in out.getvalue().splitlines() if line] == [
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
    out = StringIO()
    run_on(Console(file=out, width=240, force_terminal=is_terminal, color_system=None), monkeypatch, *more)
    steps = [line.partition(" s] ")[2] for line in out.getvalue().splitlines() if line.startswith("[ ")]
    expected = [
        "debian-13: running the suite",
        "1/1 debian-13 stock 0.10.8: pass",
        "note: guests are not run at all",
    ]
    assert steps == (expected if lines else [])
    assert ("1 of 1 cells" in out.getvalue()) is not lines


@pytest.fixture
def half_run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a run of two cells that was interrupted after the first."""
    with monkeypatch.context() as patched:
        interrupt(patched)
        line = [*TWO_CELLS, "--build", "0.10.8", "--repeat", "3", "--rootfs", str(layout(home))]
        assert run_main(patched, *line) == common.INTERRUPTED
    [folder] = home.glob("state/runs/*")
    out = capsys.readouterr().out
    assert f"continue with: lab matrix --resume {folder}\n" in out
    return folder


def layout(folder: Path) -> Path:
    """As much of an OCI image layout as is looked at."""
    (folder / "layout" / "blobs").mkdir(parents=True)
    for name in ("oci-layout", "index.json"):
        (folder / "layout" / name).touch()
    return folder / "layout"


@pytest.mark.parametrize("by", ["name", "folder"])
def test_a_run_that_is_resumed_runs_what_is_left_as_it_was_begun(
    half_run: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by: str,
) -> None:
    before = RunResult.read(half_run)
    which = half_run.name if by == "name" else str(half_run)
    free = ["--jobs", "3", "--memory", "4096", "--verbose"]
    # The cell that stands was no pass: it is not run again, and counts.
    assert run_main(monkeypatch, "matrix", "--resume", which, *free) == 1
    assert passing == ["debian-13/max-userns-zero/0.10.8"]
    assert f"2 cells, 1 of them kept from before, run {half_run}\n" in capsys.readouterr().out
    after = RunResult.read(half_run)
    assert after.cells[0] == before.cells[0]
    assert [cell.status for cell in after.cells] == ["xpass", "pass"]
    assert (after.run.options, after.run.command) == (before.run.options, before.run.command)
    assert after.run.options.repeat == 3
    assert (len(after.run.resumed), after.run.interrupted) == (1, False)
    log = (half_run / "run.log").read_text()
    assert log.index("stock 0.10.8: xpass") < log.index("max-userns-zero 0.10.8: pass")


@pytest.mark.parametrize(
    "option",
    [
        ["-g", "debian-13"],
        ["-v", "stock"],
        ["--set", "quick"],
        ["--build", "0.10.8"],
        ["--shard", "1/2"],
        # What it is anyway is refused too: nobody has to know.
        ["--repeat", "3"],
        ["--retries", "1"],
        ["--cold"],
        ["--rootfs", "/layout"],
        ["-o", "/run"],
    ],
    ids=lambda option: str(option[0]),
)
def test_a_run_that_is_resumed_keeps_its_plan(
    half_run: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: Sequence[str],
) -> None:
    before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
    for line in (["--resume", half_run.name, *option], [*option, "--resume", half_run.name]):
        assert run_main(monkeypatch, "matrix", *line) == 2
        said = capsys.readouterr()
        assert f"lab: {option[0]} cannot be changed for a run that is resumed\n  next: " in said.err
        assert said.out == ""
    assert passing == []
    assert {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("run", "said"), [("20261124", "no run is called '20261124'"), ("", "no run is called ''")]
)
def test_a_run_that_there_is_not_is_not_resumed(
    half_run: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: str,
    said: str,
) -> None:
    monkeypatch.setattr(pip, "newest", lambda: "0.10.8")
    assert run_main(monkeypatch, "matrix", "--resume", run) == 2
    assert said in capsys.readouterr().err
    assert passing == []


def test_a_run_at_which_another_lab_is_at_work_is_left_alone(
    half_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def connection(_uri: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(scheduler, "connection", connection)
    with FileLock(half_run / LOCK):
        before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
        assert run_main(monkeypatch, "matrix", "--resume", str(half_run)) == 2
        assert {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()} == before
    assert "another lab is at work in it" in capsys.readouterr().err


# -- shards


@pytest.fixture
def shards(
    home: Path,
    tmp_path: Path,
    passing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """The folders of the two shards of a plan, both run."""
    folders = [str(tmp_path / f"shard-{number}") for number in (1, 2)]
    for number, folder in enumerate(folders, 1):
        line = [*TWO_CELLS, "--build", "0.10.8", "--shard", f"{number}/2", "-o", folder]
        assert run_main(monkeypatch, *line) == 0
    capsys.readouterr()
    return folders


def test_merged_shards_are_the_run_of_the_plan(
    shards: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    merged = tmp_path / "merged"
    assert run_main(monkeypatch, "merge", *reversed(shards), "-o", str(merged)) == 0
    out = capsys.readouterr().out
    assert "\n2 pass\n" in out
    assert out.endswith(f"run: {merged} (results.json, matrix.md)\n")
    assert [cell.variant for cell in RunResult.read(merged).cells] == ["stock", "max-userns-zero"]
    assert "| debian-13 | - | pass | pass |" in (merged / "matrix.md").read_text()
    assert run_main(monkeypatch, "matrix", "--resume", str(merged)) == 2
    assert "was merged from other runs" in capsys.readouterr().err


def test_what_no_shard_has_run_is_not_a_pass(
    shards: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "merge", shards[1]) == 3
    assert "\n1 pass, 1 not-run\n" in capsys.readouterr().out
    [folder] = home.glob("state/runs/*")
    assert [cell.reason for cell in RunResult.read(folder).cells] == ["in none of the merged shards", ""]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["shard-1", "shard-1"], "overlap: both have debian-13/stock/0.10.8"),
        (["shard-1", "other"], "other is not a shard of the same plan as run shard-1: another plan"),
        (["other", "shard-1"], "shard-1 is not a shard of the same plan as run other: another plan"),
        (["shard-1", "whole"], "whole is not a shard"),
        (["whole"], "whole is not a shard"),
        (["shard-1", "."], "is not the folder of a run"),
        (["shard-1", "shard-2", "-o", "shard-1"], "-o shard-1: there is a run in it already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_run_is_not_merged(
    shards: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    release = ["--build", "0.10.8", "-o"]
    assert run_main(monkeypatch, *ONE_CELL, "-g", "debian-12", "--shard", "2/2", *release, "other") == 0
    assert run_main(monkeypatch, *TWO_CELLS, *release, "whole") == 0
    capsys.readouterr()
    before = sorted(tmp_path.rglob("*"))
    assert run_main(monkeypatch, "merge", *parts) == 2
    heard = capsys.readouterr()
    assert said in heard.err
    assert heard.out == ""
    assert sorted(tmp_path.rglob("*")) == before


# -- the end


BUSY = """
import time
from lab import cli
from lab.lane import shell

def wait():
    # A signal that comes right before signal.pause() would not end that.
    while True:
        time.sleep(0.05)

def busy(*_, **__):
    try:
        print("at work", flush=True)
        wait()
    finally:
        print("taking down", flush=True)
        wait()

shell.ready = busy
cli.main()
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_twice_does_not_wait(home: Path, first: int, second: int) -> None:
    command = [sys.executable, "-c", BUSY, "shell", "debian-13", "--build", "0.10.8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "at work\n"
            child.send_signal(first)
            assert child.stdout.readline() == "taking down\n"
            child.send_signal(second)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == common.INTERRUPTED
    assert said.endswith("\nstopped at once; lab clean, or the next run, removes what is left\n")
    assert "Traceback" not in said


def test_remedies_are_listed_with_what_they_give_up(home: Path) -> None:
    done = lab("remedies")
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[0] for line in done.stdout.splitlines() if line[:1].strip()]
    assert names[0] == "remedy"
    known = remedies.load()
    assert names[1 : len(known) + 1] == list(known)
    assert "userns-sysctl" in done.stdout


@pytest.mark.parametrize("name", remedies.load())
def test_a_remedy_is_shown_with_its_price_and_how_it_is_done(home: Path, name: str) -> None:
    remedy = remedies.find(name)
    done = lab("remedies", "show", name)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    assert " ".join(remedy.price.split()) in words
    assert ", ".join(remedy.cures) in words
    how = remedy.host.apply if remedy.host else remedy.run.example if remedy.run else ""
    assert how.strip() in done.stdout


def test_the_script_that_is_printed_is_the_one_that_the_lab_runs(home: Path) -> None:
    done = lab("remedies", "show", "userns-clone-on", "--script")
    assert (done.returncode, done.stdout) == (0, remedies.find("userns-clone-on").script())


@pytest.mark.parametrize(
    ("words", "tries", "experiments"),
    [
        (["-g", "debian-13", "-v", "stock"], True, ExperimentPolicy.UNCLEAR),
        (["-g", "debian-13", "-v", "stock", "--no-remedies"], False, ExperimentPolicy.UNCLEAR),
        (["--set", "quick", "-g", "debian-13", "-v", "stock"], False, ExperimentPolicy.UNCLEAR),
        (["--set", "quick", "-g", "debian-13", "-v", "stock", "--remedies"], True, ExperimentPolicy.UNCLEAR),
        (["-g", "debian-13", "-v", "stock", "--experiment"], True, ExperimentPolicy.ALWAYS),
        (["-g", "debian-13", "-v", "stock", "--no-experiment"], True, ExperimentPolicy.NEVER),
        (["-g", "debian-13", "-v", "stock", "--cold"], False, ExperimentPolicy.NEVER),
    ],
)
def test_remedies_and_experiments_are_tried_unless_the_set_or_the_user_says_otherwise(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    tries: bool,
    experiments: ExperimentPolicy,
) -> None:
    begun: list[RunOptions] = []

    def run(matrix: scheduler.Scheduler) -> RunResult:
        begun.append(matrix.info.options)
        return RunResult(run=matrix.info, cells=[])

    monkeypatch.setattr(scheduler.Scheduler, "run", run)
    seen: list[str] = []
    monkeypatch.setattr(common, "say", seen.append)
    folder = tmp_path / "run"
    folder.mkdir()
    assert run_main(monkeypatch, "matrix", *words, "--build", "0.10.8", "-o", str(folder)) == 0
    assert [(options.remedies, options.experiments) for options in begun] == [(tries, experiments)]
    told = "--cold makes no forks, so no remedies and no experiments are tried"
    assert (told in seen) is ("--cold" in words)


def test_an_error_with_text_from_a_guest_controls_neither_terminal_nor_ci(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_folder: Path) -> None:
        raise LabError("x\x1b[31m\u202e\n::error::forged\n##[add-path]" + "y" * 100_000)

    monkeypatch.setattr(RunResult, "read", fail)
    assert run_main(monkeypatch, "report", str(tmp_path)) == 3
    said = capsys.readouterr().err
    assert "forged" in said
    assert not re.search("[\x1b\u202e]", said)
    assert not [line for line in said.splitlines() if line.startswith("::") or "##[" in line]
    assert len(said) < 30_000


def test_the_doctor_of_a_plan_names_what_only_other_guests_need(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    really = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, path=None: None if name == "gpgv" else really(name, path=path)
    )
    run_main(monkeypatch, "--connect", "test:///default", "doctor", "-g", "debian-13")
    lines = capsys.readouterr().out.splitlines()
    where = next(number for number, line in enumerate(lines) if line.startswith("gpgv"))
    assert lines[where].split(maxsplit=3)[1:] == ["not", "needed", "gpgv is not installed"]
    assert "fedora-43" in lines[where + 1]
    assert run_main(monkeypatch, "doctor", "-g", "debain-13") == 2
