"""A run for GitHub Actions: the summary of a job, and annotations."""

import re
from pathlib import Path
from typing import Any

import pytest

from lab.record import BuildRecord, CellResult, Foreseen, Prediction, Status
from lab.report import github, junit, markdown
from tests.builders.cells import cell
from tests.builders.processes import RunLab
from tests.builders.runs import run_of

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,]*)::(.*)")


def failed(guest: str, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "status": Status.FAIL,
        "cause": "unknown",
        "reason": f"of {guest}",
        "rerun": f"lab matrix -g {guest}",
    }
    return cell(guest, **(given | more))


# -- annotations


def test_a_job_is_told_how_often_the_probes_alone_were_right_and_where_they_were_wrong() -> None:
    works, blocked = Prediction(says=Foreseen.WORKS), Prediction(says=Foreseen.BLOCKED, cause="seccomp")
    cells = [cell("debian-12", prediction=works), cell("debian-13", prediction=blocked)]
    builds = [BuildRecord(name="0.10.8", version="0.10.8", source="PyPI", suite="jailer")]
    run = run_of(*cells, builds=builds)
    told, wrong = github.list_annotations(run)[-2:]
    assert told.endswith("::2 pass%0Athe probes alone: 1 right, 1 wrong, 0 silent of 2")
    assert wrong == (
        "::notice title=a prediction was wrong%3A a rule or a probe is at fault::"
        "debian-13 stock 0.10.8: ~ seccomp, and it is: pass"
    )
    # JUnit has no place for a line about all cells: each says what was expected of it.
    assert 'name="prediction" value="~ seccomp"' in junit.render_junit(run)


def test_a_version_that_several_builds_have_is_told_once_and_what_ends_a_title_is_escaped() -> None:
    builds = [BuildRecord(name=name, version="abc-dirty", source=name) for name in ("one", "other")]
    run = run_of(cell("debian-13"), builds=[*builds, BuildRecord(name="3", version="A:C", source="3")])
    notice = "::notice title=boxlite abc-dirty%2C A%3AC%3A the jailer on 1 guest of x86_64::1 pass"
    assert github.list_annotations(run) == [notice]
    assert markdown.render_run(run).startswith("# boxlite abc-dirty, A:C: the jailer on 1 guest of x86_64\n")


def test_at_most_ten_annotations_of_a_kind_are_made_and_the_last_says_how_many_more() -> None:
    *ten, _ = github.list_annotations(run_of(*[failed(f"guest-{number}") for number in range(10)]))
    assert ten[9].startswith("::error title=fail unknown%3A guest-9 stock::of guest-9%0A")
    *many, _ = github.list_annotations(run_of(*[failed(f"guest-{number}") for number in range(30)]))
    assert len(many) == 10
    assert many[9] == "::error title=and 21 more::the job's summary lists them"
    [line] = github.list_annotations(run_of())
    assert line.endswith("::this run has no cells")


# -- the summary


def test_the_summary_is_the_page_without_links(tmp_path: Path) -> None:
    text = github.render_summary(run_of(failed("debian-13", evidence=["cells/a"]), cell("debian-12")), tmp_path)
    assert text.startswith("# boxlite 0.10.8: the jailer on 2 guests of x86_64\n\n1 pass, 1 fail\n")
    assert "\n## fail unknown: debian-13 stock\n" in text
    assert "](" not in text


def test_a_summary_that_is_too_long_lacks_its_last_sections_and_says_so(tmp_path: Path) -> None:
    cells = [failed(f"guest-{number}", reason="ü" * 3000 + str(number)) for number in range(300)]
    text = github.render_summary(run_of(*cells), tmp_path)
    assert 0.95 * github.LARGEST < len(text.encode()) <= github.LARGEST
    assert text.endswith(github.CUT)
    # The table has all cells, and no section is cut.
    assert "| guest-299 |" in text
    assert 0 < text.count("\n## fail") == text.count("</details>") < 300


@pytest.mark.parametrize("room", [-5, 10, 300, 2000, 10_000])
def test_a_table_that_is_too_long_is_cut_after_a_line_with_a_note(tmp_path: Path, room: int) -> None:
    run = run_of(*[cell(f"gäst-{number}") for number in range(1000)])
    text = github.render_summary(run, tmp_path, room)
    assert len(text.encode()) <= max(room, 0)
    assert text == "" if room < len(github.CUT) else text.endswith(github.CUT)
    kept = text.removesuffix(github.CUT).splitlines()
    assert kept == github.render_summary(run, tmp_path).splitlines()[: len(kept)]


# -- the command line


@pytest.fixture
def folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    run_of(failed("debian-13")).write(tmp_path)
    return tmp_path


def test_outside_of_a_job_the_summary_is_printed_before_the_annotations(folder: Path, run_lab: RunLab) -> None:
    printed = run_lab(1, "report", folder, "--format", "github").out
    assert printed.startswith("# boxlite 0.10.8: the jailer on 1 guest of x86_64\n")
    assert [line.partition(" ")[0] for line in printed.splitlines()[-2:]] == ["::error", "::notice"]


def test_a_job_gets_the_summary_added(folder: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab) -> None:
    job = folder / "summary.md"
    job.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    printed = run_lab(1, "report", folder, "--format", "github").out
    assert job.read_text().startswith("of an earlier step\n# boxlite 0.10.8: the jailer on 1 guest of x86_64\n")
    assert all(map(COMMAND.fullmatch, printed.splitlines()))
    # The limit counts what is there already.
    job.write_text("x" * (github.LARGEST - 400))
    run_lab(1, "report", folder, "--format", "github")
    assert github.LARGEST - 400 < job.stat().st_size <= github.LARGEST
    assert job.read_text().endswith(github.CUT)
    # A file that cannot be written is named.
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder))
    printed = run_lab(2, "report", folder, "--format", "github").err
    assert f"the job's summary cannot be written: Is a directory: {folder}" in printed
