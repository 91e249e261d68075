"""What cannot be shown of one cell is said in its place: the other cells are shown, and a bug ends with 4."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.base import notices
from lab.base.errors import LabError
from lab.record import CellResult, RunResult
from lab.report import table
from lab.report.site.publish import publish_site
from lab.verdict import words
from lab.verdict.words import FinishedCell
from tests.builders.cells import changed
from tests.builders.finished_cells import gathered
from tests.builders.output import REPORTS, pages
from tests.builders.processes import run_main
from tests.builders.runs import run_of
from tests.unit.report.test_upstream import failed, recorded

OTHER = "userns-limit"
in_each_report = pytest.mark.parametrize("render", REPORTS.values(), ids=REPORTS)


@pytest.fixture(autouse=True)
def bugs(monkeypatch: pytest.MonkeyPatch) -> dict[str, None]:
    kept: dict[str, None] = {}
    monkeypatch.setattr(notices, "bugs", kept)
    return kept


@pytest.fixture
def run(tmp_path: Path) -> RunResult:
    """Two cells that failed; the reports of the first meet a bug wherever they read what boxlite said."""
    cells = [failed(), failed(OTHER)]
    recorded(tmp_path, *cells)
    run = run_of(*cells)
    run.write(tmp_path)
    return run


def of_the_first(make: Callable[..., object]) -> Callable[..., object]:
    def broken(cell: CellResult, *rest: object) -> object:
        if cell.variant != OTHER:
            raise TypeError("a bug")
        return make(cell, *rest)

    return broken


@pytest.mark.parametrize("name", ["Markdown", "HTML", "summary", "upstream"])
def test_a_bug_in_reading_one_cell_is_said_in_its_place(
    run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bugs: dict[str, None], name: str
) -> None:
    monkeypatch.setattr(words, "judge_words", of_the_first(words.judge_words))
    text = REPORTS[name](run, tmp_path)
    assert "could not be shown: TypeError: a bug" in text
    assert OTHER in text
    assert any("Traceback" in trace for trace in bugs)


@pytest.mark.parametrize("name", ["table", "Markdown", "HTML", "JUnit", "summary"])
def test_a_bug_in_the_square_of_one_cell_is_said_in_its_place(
    run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def kernel(cells: object) -> str:
        raise TypeError("a bug")

    monkeypatch.setattr(table, "format_kernel", notices.guard_text(kernel))
    square = notices.guard_text(of_the_first(table.format_square))  # type: ignore[arg-type]
    monkeypatch.setattr(table, "format_square", square)
    text = REPORTS[name](run, tmp_path)
    assert "could not be shown: TypeError" in text and f"{OTHER}" in text


@in_each_report
@pytest.mark.parametrize(
    "name", ["kernel.log", "audit.log", "probes.json", "sysctls.txt", "modes.txt", "boxlite"]
)
def test_a_folder_in_place_of_a_log_ends_no_report(
    run: RunResult, tmp_path: Path, render: Callable[[RunResult, Path], str], name: str, bugs: dict[str, None]
) -> None:
    for cell in run.cells[:1]:
        place = tmp_path / cell.folder / name
        place = place / "box-a/logs/boxlite.log" if name == "boxlite" else place
        place.unlink(missing_ok=True)
        place.mkdir()
    assert render(run, tmp_path)
    assert not bugs


def test_a_folder_in_place_of_a_log_ends_no_site(run: RunResult, tmp_path: Path, bugs: dict[str, None]) -> None:
    evidence = [f"{run.cells[0].folder}/{name}" for name in ("kernel.log", "probes.json")]
    run = run_of(changed(run.cells[0], evidence=evidence), run.cells[1])
    run.write(tmp_path)
    log = tmp_path / evidence[0]
    log.unlink(missing_ok=True)
    log.mkdir()
    publish_site([tmp_path], tmp_path / "site")
    assert "kernel.log: it is not a regular file" in " ".join(
        page.read_text() for page in pages(tmp_path / "site")
    )
    assert not bugs


def test_a_bug_in_the_page_of_one_cell_is_said_there(
    run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bugs: dict[str, None]
) -> None:
    monkeypatch.setattr(words, "judge_words", of_the_first(words.judge_words))
    publish_site([tmp_path], tmp_path / "site")
    told = {
        page.parent.name: "could not be shown" in page.read_text()
        for page in (tmp_path / "site").rglob("0.10.8.html")
    }
    assert told == {run.cells[0].variant: True, OTHER: False}
    assert bugs


def test_a_report_with_a_bug_ends_with_4_and_the_traceback(
    run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(words, "judge_words", of_the_first(words.judge_words))
    assert run_main(monkeypatch, "report", str(tmp_path), "--format", "markdown") == 4
    printed = capsys.readouterr()
    assert OTHER in printed.out
    assert "TypeError: a bug" in printed.err and "this is a bug in the lab" in printed.err


@pytest.mark.parametrize("what", ["file", "folder"])
def test_no_report_reads_through_a_link_that_leads_out_of_the_run(tmp_path: Path, what: str) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    cell = failed()
    gathered(outside, cell)
    folder = run / cell.folder
    folder.mkdir(parents=True)
    for name in ("kernel.log", "probes.json", "boxlite"):
        (folder / name).symlink_to(outside / cell.folder / name)
    if what == "folder":
        (folder / "boxlite").unlink()
        (folder / "boxlite").mkdir()
        (folder / "boxlite/box-a").symlink_to(outside / cell.folder / "boxlite/box-a")
    finished = FinishedCell(cell, run)
    assert not finished.words.logged and not finished.words.file
    for read in (lambda: finished.evidence.audit, lambda: finished.refusals):
        try:
            assert not read()
        except LabError as error:
            assert "a link leads to it" in str(error)
