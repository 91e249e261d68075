"""The program that makes the README's pictures."""

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser

from lab.record import LaneRecord, RemedyOutcome, RemedyResult
from lab.run.journal import RUN_LOG
from tests.browser import pictures
from tests.builders.cells import blocked, cell
from tests.builders.output import run_folder
from tests.builders.runs import run_of

LOG = """\
2026-11-24T16:00:30.000Z note: guests run under software emulation
2026-11-24T16:02:00.000Z debian-13 stock 0.10.8: pass (suite 60.0 s)
2026-11-24T16:02:30.000Z debian-13: userns-clone-off: running the suite
2026-11-24T16:03:00.000Z debian-13 userns-clone-off 0.10.8: xfail userns-sysctl (suite 30.0 s)
"""


def test_the_pictures_are_of_the_run_and_name_no_folder_that_it_is_in(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    cure = RemedyResult(name="userns-clone-on", result=RemedyOutcome.VERIFIED, price="its price")
    lane = LaneRecord(guest="debian-13", label="debian-13", image="1" * 64, fork="memory", seconds={})
    started = run_of().run.started
    cells = cell(lane="debian-13"), blocked("userns-sysctl", variant="userns-clone-off", remedies=[cure])
    finished = started + timedelta(minutes=4)
    run = run_folder(tmp_path, *cells, lanes=[lane], started=started, finished=finished)
    (run / RUN_LOG).write_text(LOG)
    made = tmp_path / "pictures"
    monkeypatch.setattr(pictures, "PICTURES", made)
    # A process has one driver of Playwright's at a time.
    monkeypatch.setattr(pictures, "running", lambda: nullcontext(browser))
    done = CliRunner().invoke(pictures.pictures, [str(run)], catch_exceptions=False)
    assert done.exit_code == 0
    for name in ("cell.webp", "site.webp"):
        assert (made / name).read_bytes()[8:12] == b"WEBP"
    # The live table is as it was when half of the cells were decided.
    live = (made / "live.svg").read_text().replace("&#160;", " ")
    assert "debian-13: userns-clone-off: running the suite (1 done)" in live
    assert "1 of 2 cells (1 pass), 0:02:30, about 0:01:30 left" in live
    summary = (made / "finished.svg").read_text().replace("&#160;", " ")
    assert "userns-clone-on: verified" in summary
    assert "run: run (results.json" in summary
    assert tmp_path.name not in summary
