"""Results that were taken over from an earlier run are shown as such, with the run and its date."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.check import results
from lab.check.results import Source
from lab.record import BuildRecord, CellResult, Foreseen, KeptFrom, LaneRecord, Prediction, RunResult, Status
from lab.report import github, junit, markdown, run_notes, terminal
from lab.report.predictions import score_run
from lab.report.site.one_page import render_one_page
from tests.builders.cells import cell, done
from tests.builders.output import Parsed, site_of
from tests.builders.runs import host, run_of

ORIGIN = KeptFrom(run="first", began=datetime(2026, 11, 20, tzinfo=UTC))
KEPT = done(Status.PASS, guest="debian-13", kept=ORIGIN, lane="first: debian-13")
RUN = run_of(KEPT, cell("debian-12"), host=host())
LINE = "kept from run first of 2026-11-20, unchanged since: debian-13"


def show_table(run: RunResult, folder: Path) -> str:
    console = Console(width=200, record=True, file=(folder / "out").open("w"))
    terminal.print_summary(console, run, folder)
    return console.export_text()


@pytest.mark.parametrize(
    "render",
    [
        show_table,
        lambda run, folder: markdown.render_run(run, folder),
        render_one_page,
        lambda run, folder: github.render_summary(run, folder),
    ],
    ids=["table", "markdown", "html", "github"],
)
def test_a_page_of_a_run_says_what_was_kept(tmp_path: Path, render: Callable[[RunResult, Path], str]) -> None:
    text = render(RUN, tmp_path)
    assert "kept 2026-11-20" in text
    assert LINE in text


def test_reports_for_ci_say_what_was_kept() -> None:
    report = junit.render_junit(RUN)
    assert report.count('name="kept from" value="run first of 2026-11-20"') == 1
    assert report.count('timestamp="2026-11-20T00:00:00+00:00"') == 1
    assert f"%0A{LINE}" in github.list_annotations(RUN)[-1]
    assert '"kept":{"run":"first","began":"2026-11-20T00:00:00Z"}' in RUN.model_dump_json()


def test_a_run_counts_only_what_it_ran_itself() -> None:
    foreseen = Prediction(says=Foreseen.WORKS)
    builds = [BuildRecord(name="0.10.8", version="0.10.8", source="PyPI", suite="jailer")]
    cells = [cell(kept=ORIGIN, prediction=foreseen), cell("debian-12", prediction=foreseen)]
    assert score_run(run_of(*cells, builds=builds)).total == 1
    # The lane of a kept cell took time on another day, maybe on another host.
    own = LaneRecord(guest="debian-12", label="debian-12", image="1", fork="memory", seconds={})
    kept = own.in_run("first: debian-13", host(name="elsewhere", cpus=64))
    lanes = [lane.with_values(processor_seconds=60.0) for lane in (kept, own)]
    finished = datetime(2026, 11, 24, 16, 2, tzinfo=UTC)
    run = run_of(KEPT, cell("debian-12", lane="debian-12"), lanes=lanes, host=host(), finished=finished)
    assert run_notes.describe_time(run).endswith("busy for 0:01:00 of 2 x 0:02:00")
    assert run_notes.describe_time(run_of(KEPT, lanes=lanes[:1], finished=finished)) == ""
    # It ran nothing in this run.
    assert run_notes.describe_hosts(run) == []


def source(name: str, day: int, *cells: CellResult) -> Source:
    run = run_of(*cells)
    started = {"id": name, "started": datetime(2026, 11, day, tzinfo=UTC)}
    return Source(run.model_copy(update={"run": run.run.model_copy(update=started)}), Path(name))


def newest(*sources: Source) -> Any:
    [result] = results.choose_newest_results(sources).cells.values()
    return result


def test_a_result_is_as_old_as_the_run_that_ran_it() -> None:
    first, kept = source("first", 20, cell()), source("second", 24, KEPT)
    # It is shown once: of the run that ran it, if that is published.
    both = newest(first, kept)
    assert (both.source, both.older, both.later) == (first, (), ())
    alone = newest(kept)
    assert (alone.source, alone.began, alone.source.ran_by(alone.cell)) == (kept, ORIGIN.began, "first")
    # A run in between has run the cell itself.
    between = source("between", 22, cell())
    assert newest(kept, between).source == between
    assert [older.id for _, older in newest(kept, between).older] == ["second"]


def test_the_site_counts_a_kept_cell_with_its_date(tmp_path: Path) -> None:
    site = site_of(tmp_path, KEPT)
    page = Parsed(site / "cells/debian-13/stock/0.10.8.html").words
    assert "The result is kept from run first of 2026-11-20: nothing that decides it has changed since." in page
    assert Parsed(site / "index.html").words.count("2026-11-20") == 1
    assert "2026-11-20" in (site / "support.md").read_text()
    host_page = Parsed(site / "hosts/debian-13.html").words
    assert "2026-11-20" in host_page
