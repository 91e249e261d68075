"""The program that makes the README's pictures."""

from contextlib import nullcontext
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser
from rich.console import Console

from lab.record import Expectation, LaneRecord, RemedyOutcome, RemedyResult, RunResult, Status
from lab.run.journal import RUN_LOG
from tests.browser import pictures
from tests.builders.cells import cell
from tests.builders.output import run_folder
from tests.builders.runs import run_of

LOG = """\
2026-11-24T16:00:30.000Z note: guests run under software emulation
2026-11-24T16:01:00.000Z debian-13: stock
2026-11-24T16:02:00.000Z debian-13 stock 0.10.8: pass (suite 60.0 s)
2026-11-24T16:02:00.000Z debian-13: userns-clone-off
2026-11-24T16:02:30.000Z debian-13: userns-clone-off: running the suite
2026-11-24T16:03:00.000Z debian-13 userns-clone-off 0.10.8: xfail userns-sysctl (suite 30.0 s)
2026-11-24T16:03:10.000Z debian-13: done
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of a passing cell and of one that fails and has a cure."""
    cure = RemedyResult(name="userns-clone-on", result=RemedyOutcome.VERIFIED, price="its price")
    failing = cell(
        variant="userns-clone-off",
        status=Status.XFAIL,
        cause="userns-sysctl",
        reason="the sysctl is 0",
        expected=Expectation(status="xfail", cause="userns-sysctl"),
        lane="debian-13",
        remedies=[cure],
    )
    started = run_of().run.started
    lane = LaneRecord(guest="debian-13", label="debian-13", image="1" * 64, fork="memory", seconds={})
    folder = run_folder(
        tmp_path,
        cell(lane="debian-13"),
        failing,
        started=started,
        finished=started + timedelta(minutes=4),
        lanes=[lane],
    )
    (folder / RUN_LOG).write_text(LOG)
    return folder


def test_the_live_table_is_shown_as_it_was_when_half_of_the_cells_were_decided(run: Path) -> None:
    screen = StringIO()
    pictures.middle(Console(file=screen, width=100), RunResult.read(run), LOG)
    head, row, _, lane, last = screen.getvalue().splitlines()
    assert head.split() == ["guest", "stock", "userns-clone-off"]
    assert row.split() == ["debian-13", "pass", "·"]
    assert lane == "debian-13: userns-clone-off: running the suite (1 done)"
    assert last == "1 of 2 cells (1 pass), 0:02:30, about 0:01:30 left"


def test_the_pictures_are_of_the_run_and_name_no_folder_that_it_is_in(
    run: Path, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "pictures"
    monkeypatch.setattr(pictures, "PICTURES", made)
    # A process has one driver of Playwright's at a time.
    monkeypatch.setattr(pictures, "running", lambda: nullcontext(browser))
    done = CliRunner().invoke(pictures.pictures, [str(run)], catch_exceptions=False)
    assert done.exit_code == 0
    assert {file.name for file in made.iterdir()} == {"cell.webp", "finished.svg", "live.svg", "site.webp"}
    summary = (made / "finished.svg").read_text()
    assert "userns-clone-on:&#160;verified" in summary
    assert "run:&#160;run&#160;(results.json" in summary
    assert tmp_path.name not in summary
    for name in ("cell.webp", "site.webp"):
        assert (made / name).read_bytes()[8:12] == b"WEBP"
