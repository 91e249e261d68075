"""`lab runs`: past runs listed and deleted, through the command line."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.cli import options, reports
from lab.record import BuildRecord, CellResult, RunResult, Status
from lab.record.folders import LOCK, choose_deletable_runs, delete_run, lock_folder
from tests.builders.cells import cell
from tests.builders.processes import LOCK_HOLDER, other_process
from tests.builders.runs import run_of

DAY = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> options.Lab:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    return options.Lab("test:///default")


def write(
    paths: Paths,
    name: str,
    *cells: CellResult,
    ended: bool = True,
    started: datetime = DAY,
    interrupted: bool = False,
) -> Path:
    folder = paths.runs / name
    folder.mkdir(parents=True)
    run = run_of(*cells, builds=[BuildRecord(name="0.10.8", version="0.10.8", source="PyPI")])
    run.run.started, run.run.interrupted = started, interrupted
    run.run.finished = started + timedelta(hours=1) if ended else None
    run.write(folder)
    (folder / "cells" / "debian-13").mkdir(parents=True)
    (folder / "cells" / "debian-13" / "kernel.log").write_text("x" * 5000)
    return folder


def call(lab: options.Lab, *words: str) -> int:
    status = reports.runs_command.main(list(words), obj=lab, standalone_mode=False)
    assert isinstance(status, int)
    return status


def documents(lab: options.Lab, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert call(lab, "--json") == 0
    return {run["name"]: run for run in json.loads(capsys.readouterr().out)["runs"]}


def table(lab: options.Lab, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    assert call(lab) == 0
    return [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]


def test_each_run_is_a_row(lab: options.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(lab) == 0
    assert "make one with: lab matrix --set quick" in capsys.readouterr().out
    assert documents(lab, capsys) == {}
    write(lab.paths, "a", cell(), cell(variant="podman"))
    write(lab.paths, "b", cell(), cell(variant="podman", status=Status.FAIL))
    write(lab.paths, "c\x1b[2J", cell(status=Status.ERROR))  # No name steers the terminal.
    assert table(lab, capsys) == [
        ["run", "started (UTC)", "builds", "state", "result", "size"],
        ["a", "2026-11-24 16:00", "0.10.8", "complete", "2 pass: as expected", "0 MiB"],
        ["b", "2026-11-24 16:00", "0.10.8", "complete", "1 pass, 1 fail: not as expected", "0 MiB"],
        ["c", "2026-11-24 16:00", "0.10.8", "complete", "1 error: not all could be run", "0 MiB"],
    ]


def test_json_has_what_the_table_has(lab: options.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(lab.paths, "a", cell(), cell(variant="podman", status=Status.FAIL))
    document = documents(lab, capsys)["a"]
    size = document.pop("bytes")
    assert isinstance(size, int)
    assert size >= 5000
    assert document == {
        "name": "a",
        "folder": str(folder),
        "state": "complete",
        "started": "2026-11-24T16:00:00+00:00",
        "finished": "2026-11-24T17:00:00+00:00",
        "builds": ["0.10.8"],
        "counts": {"pass": 1, "fail": 1},
        "exit_status": 1,
        "fault": None,
    }


def test_an_incomplete_run_is_named(lab: options.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    write(lab.paths, "interrupted", cell(), interrupted=True)
    # The lock of a dead lab is nobody's.
    (write(lab.paths, "killed", cell(), ended=False) / LOCK).touch()
    cut_off = write(lab.paths, "cut-off", cell()) / "results.json"
    cut_off.write_text(cut_off.read_text()[:200])
    (lab.paths.runs / "empty").mkdir()
    making = write(lab.paths, "making", cell(), ended=False)
    with other_process(LOCK_HOLDER, making / LOCK):
        runs = documents(lab, capsys)
    assert {name: run["state"] for name, run in runs.items()} == {
        "interrupted": "interrupted",
        "killed": "unfinished",
        "cut-off": "damaged",
        "empty": "damaged",
        "making": "being made",
    }
    assert "Invalid JSON" in str(runs["cut-off"]["fault"])
    assert runs["cut-off"]["exit_status"] is None
    assert "No such file" in str(runs["empty"]["fault"])


def test_deleting_removes_named_runs_only(lab: options.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        write(lab.paths, name, cell())
    (lab.paths.runs / "c" / "results.json").write_text("{")  # A damaged run, too.
    (lab.paths.runs / "a" / "elsewhere").symlink_to(lab.paths.runs / "b")
    assert call(lab, "delete", "a", "c", "a", "--yes") == 0
    assert [folder.name for folder in lab.paths.runs.iterdir()] == ["b"]
    assert (lab.paths.runs / "b" / "cells" / "debian-13" / "kernel.log").exists()
    assert capsys.readouterr().out.splitlines() == [
        "deleted a (0 MiB)",
        "deleted c (0 MiB)",
        "`lab images prune` removes images that only these runs used",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no run is called 'nowhere'"),
        *(
            (name, "is not the name of one of the lab's own runs")
            for name in ("../runs/a", ".", "..", "", "/", "link")
        ),
        ("notes", "has no results.json, so it may not be a run"),
        ("making", "run making is in progress"),
    ],
)
def test_one_bad_name_deletes_nothing(lab: options.Lab, name: str, message: str, tmp_path: Path) -> None:
    for run in ("a", "making"):
        write(lab.paths, run, cell())
    (lab.paths.runs / "notes").mkdir()
    (lab.paths.runs / "notes" / "mine.txt").touch()
    (lab.paths.runs / "link").symlink_to(write(Paths(tmp_path, tmp_path / "other"), "b", cell()))
    with (
        other_process(LOCK_HOLDER, lab.paths.runs / "making" / LOCK),
        pytest.raises(UsageError, match=re.escape(message)),
    ):
        call(lab, "delete", "a", name, "--yes")
    assert sorted(run.name for run in lab.paths.runs.iterdir()) == ["a", "link", "making", "notes"]
    assert (lab.paths.runs / "link" / "results.json").exists()


def test_a_run_that_a_lab_takes_up_meanwhile_is_kept(lab: options.Lab) -> None:
    folder = write(lab.paths, "a", cell())
    [chosen] = choose_deletable_runs(lab.paths.runs, ["a"])
    with lock_folder(folder), pytest.raises(UsageError, match="another lab is at work in it"):
        delete_run(chosen)
    assert RunResult.read(folder).cells


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delete", "a"], "deleting needs a confirmation, and this is not a terminal"),
        (["--json", "delete", "a"], "--json lists the runs"),
    ],
)
def test_what_is_not_clear_deletes_nothing(lab: options.Lab, words: Sequence[str], message: str) -> None:
    write(lab.paths, "a", cell())
    with pytest.raises(UsageError, match=message):
        call(lab, *words)
    assert (lab.paths.runs / "a" / "results.json").exists()


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("\n", ["a"])])
def test_on_a_terminal_the_user_is_asked(
    lab: options.Lab, answer: str, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lab.paths, "a", cell())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _text: answer.strip())
    if left:
        with pytest.raises(click.Abort):
            call(lab, "delete", "a")
    else:
        assert call(lab, "delete", "a") == 0
    assert [run.name for run in lab.paths.runs.iterdir()] == left
