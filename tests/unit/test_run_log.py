"""run.log: all that a run tells, each line with its time."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.record import CellResult
from lab.report.live import RunLog
from lab.run.journal import RUN_LOG
from lab.run.observer import Silent
from tests.builders.cells import cell
from tests.builders.output import FAULT, SAID, STEERING, told


class Heard(Silent):
    """A view that remembers."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def lane(self, lane: str, text: str) -> None:
        self.all.append((lane, text))

    def cell(self, result: CellResult) -> None:
        self.all.append(result)

    def note(self, text: str) -> None:
        self.all.append(text)

    def time_left(self, seconds: float | None) -> None:
        self.all.append(seconds)


STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)")


def entries(folder: Path) -> list[tuple[datetime, str]]:
    """Return the log's lines; check that each has a time."""
    found = []
    for line in (folder / RUN_LOG).read_text().splitlines():
        match = STAMP.fullmatch(line)
        assert match, line
        found.append((datetime.fromisoformat(match[1]), match[2]))
    return found


def test_the_log_has_all_that_a_run_tells_and_tells_it_on(tmp_path: Path) -> None:
    heard = Heard()
    result = cell(seconds={"fork": 0.52, "suite": 21.0})
    with RunLog(tmp_path / "run", heard) as log:
        log.lane("debian-13", "booting")
        log.lane("debian-13", "deploying: 1 of 38 MiB")
        log.lane("debian-13", "deploying: 2 of 38 MiB")
        log.note("guests run under software emulation")
        log.cell(result)
        log.time_left(12.0)
        log.lane("debian-13", "")
    assert [text for _, text in entries(tmp_path / "run")] == [
        "debian-13: booting",
        "debian-13: deploying",
        "note: guests run under software emulation",
        "debian-13 stock 0.10.8: pass (fork 0.5 s, suite 21.0 s)",
        "debian-13: done",
    ]
    assert heard.all == [
        ("debian-13", "booting"),
        ("debian-13", "deploying: 1 of 38 MiB"),
        ("debian-13", "deploying: 2 of 38 MiB"),
        "guests run under software emulation",
        result,
        12.0,
        ("debian-13", ""),
    ]


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host in a time zone 14 hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "FAR-14")
        time.tzset()
        yield
    time.tzset()


def test_the_log_s_times_are_in_utc(tmp_path: Path, far_east: None) -> None:
    before = datetime.now(UTC)
    with RunLog(tmp_path, Silent()) as log:
        log.note("now")
    [(stamp, _)] = entries(tmp_path)
    # Milliseconds are truncated.
    assert before - timedelta(milliseconds=1) <= stamp <= datetime.now(UTC)


def test_the_log_of_a_run_that_is_resumed_is_written_on(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with RunLog(tmp_path, Silent()) as log:
            log.note(text)
    assert [text for _, text in entries(tmp_path)] == ["note: first", "note: second"]


def test_the_log_says_what_ended_the_run(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room"), RunLog(tmp_path, Silent()) as log:
        log.note("first")
        raise OSError("no room")
    assert entries(tmp_path)[-1][1] == "ended by OSError: no room"


def test_a_fault_of_many_lines_leaves_each_line_of_the_log_its_time(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"), RunLog(tmp_path, Silent()) as log:
        log.cell(cell(retried=[FAULT]))
        log.note(FAULT)
        raise OSError(FAULT)
    text = " ".join(text for _, text in entries(tmp_path))
    assert "debian-13 stock 0.10.8: pass (try 2)" in text
    assert "tried again after: the machine of debian-13 is gone" in text
    assert text.count("Reached target") == 3


def test_a_guest_cannot_write_the_log(tmp_path: Path) -> None:
    forged = "debian-12 stock 0.10.8: pass"
    said = f"{STEERING}\n2026-11-24T16:00:00.000Z {forged}"
    with pytest.raises(OSError, match="title"), RunLog(tmp_path, Silent()) as log:
        log.lane("debian-13", said)
        log.note(said)
        log.cell(told(said))
        raise OSError(said)
    text = (tmp_path / RUN_LOG).read_text()
    assert SAID in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert forged not in [line.partition("Z ")[2] for line in text.splitlines()]
