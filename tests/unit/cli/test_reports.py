"""`lab report`: which run is meant, its formats, its exit status."""

from pathlib import Path

import pytest

from lab.record import Status
from tests.builders.cells import cell
from tests.builders.processes import RunLab
from tests.builders.runs import run_of


def test_a_point_is_the_folder_one_is_in(
    home: Path, tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "state" / "runs").mkdir(parents=True)
    run_of(cell()).write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "1 pass" in run_lab(0, "report", ".")


def test_a_run_is_named_by_its_folder_or_its_name(home: Path, run_lab: RunLab) -> None:
    folder = home / "state" / "runs" / "20261124-160000"
    folder.mkdir(parents=True)
    run_of(cell(status=Status.FAIL)).write(folder)
    run_lab(1, "report", "20261124-160000")
    run_lab(1, "report", str(folder))


@pytest.mark.parametrize(
    ("status", "words", "text"),
    [
        (3, "--format json", '{\n  "schema": 3'),
        (3, "--format markdown", "# boxlite"),
        (3, "--format table", "\nguest"),
        (3, "--format html", "<!doctype html>"),
        (3, "--format junit", "<?xml"),
        (3, "--format github", "# boxlite"),
        (3, "--upstream", "# What boxlite 0.10.8 gets wrong about its own failures, in run 20261124-160000"),
        (2, "--upstream --format table", "lab: --format and --upstream are different reports"),
    ],
)
def test_the_report_that_is_asked_for_ends_with_the_status_of_its_run(
    home: Path, tmp_path: Path, run_lab: RunLab, status: int, words: str, text: str
) -> None:
    run_of(cell(), cell(guest="ubuntu-24.04", status=Status.NOT_RUN, reason="no image")).write(tmp_path)
    assert run_lab(status, "report", tmp_path, *words.split()).startswith(text)


def test_an_unknown_run_says_the_nearest(home: Path, run_lab: RunLab) -> None:
    (home / "state" / "runs" / "20261124-160000").mkdir(parents=True)
    assert "did you mean 20261124-160000?" in run_lab(2, "report", "20261124-16000")
    # No file system has a folder of this name.
    assert "no run is called 'xxx" in run_lab(2, "report", "x" * 5000)
