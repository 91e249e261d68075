"""`lab report`: which run is meant, its formats, its exit status."""

import json
from pathlib import Path

import pytest

from lab.record import Status
from tests.builders.cells import cell
from tests.builders.processes import RunLab
from tests.builders.runs import run_of


@pytest.mark.parametrize("run", [".", "./"])
def test_a_point_is_the_folder_one_is_in(
    home: Path, tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    (home / "state" / "runs").mkdir(parents=True)
    run_of(cell()).write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "1 pass" in run_lab(0, "report", run)


@pytest.mark.parametrize(("status", "expected"), [(Status.PASS, 0), (Status.FAIL, 1), (Status.ERROR, 3)])
def test_a_report_ends_with_the_status_of_its_run(
    home: Path, run_lab: RunLab, status: Status, expected: int
) -> None:
    folder = home / "state" / "runs" / "20261124-160000"
    folder.mkdir(parents=True)
    run_of(cell(status=status)).write(folder)
    run_lab(expected, "report", "20261124-160000")
    run_lab(expected, "report", str(folder))


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
    home: Path, tmp_path: Path, run_lab: RunLab, kind: str, begins: str
) -> None:
    run_of(cell()).write(tmp_path)
    assert run_lab(None, "report", str(tmp_path), "--format", kind).startswith(begins)


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["--claims", "issue-468"], "# Bug report issue-468, judged by run 20261124-160000"),
        (["--upstream"], "# What boxlite 0.10.8 gets wrong about its own failures, in run 20261124-160000"),
    ],
)
def test_a_report_of_claims_or_for_upstream_ends_with_the_status_of_its_run(
    home: Path, tmp_path: Path, run_lab: RunLab, words: list[str], begins: str
) -> None:
    run_of(cell(), cell(guest="ubuntu-24.04", status=Status.NOT_RUN, reason="no image")).write(tmp_path)
    assert run_lab(3, "report", str(tmp_path), *words).startswith(begins)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--claims", "issue-46"], "no report is called 'issue-46'\n  next: did you mean issue-468?"),
        (["--claims", "issue-468", "--upstream"], "are different reports\n  next: ask for one of them"),
        (["--upstream", "--format", "table"], "are different reports"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(
    home: Path, tmp_path: Path, run_lab: RunLab, words: list[str], said: str
) -> None:
    run_of(cell()).write(tmp_path)
    assert said in run_lab(2, "report", str(tmp_path), *words)


def test_an_unknown_run_says_the_nearest(home: Path, run_lab: RunLab) -> None:
    (home / "state" / "runs" / "20261124-160000").mkdir(parents=True)
    assert "did you mean 20261124-160000?" in run_lab(2, "report", "20261124-16000")
    # No file system has a folder of this name.
    assert "no run is called 'xxx" in run_lab(2, "report", "x" * 5000)


def test_results_that_cannot_be_read_are_no_traceback(home: Path, tmp_path: Path, run_lab: RunLab) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"schema": 9}))
    said = run_lab(2, "report", str(tmp_path))
    assert "results.json is no record that this lab can read: schema: " in said
    assert "\n  next: name another run" in said
