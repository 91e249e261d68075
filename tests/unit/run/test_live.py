"""A run in progress: the table of a terminal, the lines of a pipe and of run.log, the steps in the record."""

import re
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lab import catalog
from lab.base.activity import Activity, Progress
from lab.builds.kinds.wheel import Wheel
from lab.plan import Cell, choose_cells
from lab.record import CellResult, Foreseen, LaneStep, Prediction, Status
from lab.record.folders import RUN_LOG
from lab.run import live, observer
from lab.run.live import Lines, LiveTable, open_log
from lab.run.observer import LaneSteps, Observer
from tests.builders.cells import cell
from tests.builders.output import FAULT, SAID, STEERING, told
from tests.builders.runs import Told

BOOTING = Progress("booting", Activity.START)


def upload(done: int) -> Progress:
    return Progress(f"deploying: {done} of 38 MiB", Activity.DEPLOY, name="deploying")


def console_on(out: StringIO, *, is_terminal: bool = False, height: int = 24, width: int = 240) -> Console:
    return Console(file=out, width=width, height=height, force_terminal=is_terminal, color_system=None)


def cells_to_run(
    *builds: str, guests: str = "debian-13", variants: str = "stock max-userns-zero"
) -> list[Cell]:
    choice = choose_cells(catalog.load_catalog(), guests=guests.split(), variants=variants.split())
    return choice.cells([Wheel(name, name) for name in builds or ("0.10.8",)])


GUESTS = "debian-12 debian-13"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the live table; it stands still until a test moves it."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.mark.parametrize(
    ("is_terminal", "quiet", "verbose", "kind"),
    [
        (True, False, False, LiveTable),
        (True, False, True, Lines),
        (False, False, False, Lines),
        (True, True, False, Observer),
        (False, True, False, Observer),
    ],
)
def test_a_table_needs_a_terminal(is_terminal: bool, quiet: bool, verbose: bool, kind: type[Observer]) -> None:
    out = StringIO()
    console = console_on(out, is_terminal=is_terminal)
    with live.open_view(console, cells_to_run(), [], quiet=quiet, verbose=verbose) as view:
        assert type(view) is kind
        tell(view)
    assert bool(out.getvalue()) is not quiet


# -- lines


def tell(view: Observer) -> None:
    """What a run of four cells tells; two were decided before."""
    view.lane("debian-13", BOOTING)
    view.lane("debian-13 #2", BOOTING)
    view.lane("debian-13", BOOTING)
    view.lane("debian-13", upload(1))
    view.lane("debian-13", upload(2))
    view.note("guests run under software emulation")
    view.cell(cell(seconds={"fork": 0.52, "suite": 21.0}))
    view.lane("debian-13", None)
    view.lane("debian-13", BOOTING)
    view.cell(cell(variant="max-userns-zero", build="0.10.7", status=Status.ERROR, retried=[FAULT]))


LINES = [
    "debian-13: booting",
    "debian-13 #2: booting",
    "debian-13: deploying",
    "note: guests run under software emulation",
    "3/4 debian-13 stock 0.10.8: pass (fork 0.5 s, suite 21.0 s)",
    "debian-13: done",
    "debian-13: booting",
    "4/4 debian-13 max-userns-zero 0.10.7: error (try 2)",
    f"debian-13 max-userns-zero 0.10.7: tried again after: {' / '.join(FAULT.splitlines())}",
]


def test_the_lines_of_a_console_have_the_seconds_since_the_start(clock: SimpleNamespace) -> None:
    out = StringIO()
    with live.open_view(console_on(out), cells_to_run(), [], quiet=False, verbose=True) as view:
        view.note("first")
        clock.seconds += 7
        view.note("second")
    assert out.getvalue() == "[    0 s] note: first\n[    7 s] note: second\n"


STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)")


def entries(folder: Path) -> list[tuple[datetime, str]]:
    """Return the log's lines; check that each has a time."""
    matches = [STAMP.fullmatch(line) for line in (folder / RUN_LOG).read_text().splitlines()]
    assert all(matches)
    return [(datetime.fromisoformat(match[1]), match[2]) for match in matches if match]


def test_each_step_of_a_lane_and_each_decided_cell_is_a_line_of_a_pipe_and_of_the_log(tmp_path: Path) -> None:
    lines: list[str] = []
    tell(Lines(lines.append, total=4, earlier_count=2))
    assert lines == LINES
    heard = Told()
    with open_log(tmp_path / "run", heard) as log:
        tell(log)
    assert [text for _, text in entries(tmp_path / "run")] == [re.sub(r"^\d/4 ", "", line) for line in LINES]
    direct = Told()
    tell(direct)
    assert (heard.lanes, heard.notes, heard.cells) == (direct.lanes, direct.notes, direct.cells)


def test_the_log_s_times_are_in_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A host in a time zone 14 hours ahead of UTC.
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "FAR-14")
        time.tzset()
        before = datetime.now(UTC)
        with open_log(tmp_path, Observer()) as log:
            log.note("now")
    time.tzset()
    [(stamp, _)] = entries(tmp_path)
    # Milliseconds are truncated.
    assert before - timedelta(milliseconds=1) <= stamp <= datetime.now(UTC)


def test_the_log_of_a_run_that_is_resumed_is_written_on_and_says_what_ended_it(tmp_path: Path) -> None:
    with open_log(tmp_path, Observer()) as log:
        log.note("first")
    with pytest.raises(OSError, match="no room"), open_log(tmp_path, Observer()) as log:
        log.note("second")
        raise OSError("no room")
    lines = ["note: first", "note: second", "ended by OSError: no room"]
    assert [text for _, text in entries(tmp_path)] == lines


# -- the table


def live_of(cells: list[Cell], *done: CellResult, width: int = 240, height: int = 24) -> LiveTable:
    return LiveTable(console_on(StringIO(), width=width, height=height), cells, done)


def screen(live: LiveTable) -> str:
    out = StringIO()
    Console(file=out, width=live.live.console.width, color_system=None).print(live.live.get_renderable())
    return out.getvalue()


def test_the_table_fills_in_and_an_undecided_cell_is_a_dot(clock: SimpleNamespace) -> None:
    live = live_of(cells_to_run("0.10.7", "0.10.8"), cell(build="0.10.7", status=Status.XPASS))
    before = screen(live)
    assert re.search(
        r"guest +stock 0.10.7 +stock 0.10.8 +max-userns-zero 0.10.7 +max-userns-zero 0.10.8", before
    )
    assert re.search(r"debian-13 +xpass +· +· +·\s", before)
    assert "1 of 4 cells (1 xpass), 0:00:00\n" in before
    live.lane("debian-13", upload(2))
    live.lane("debian-13 #2", Progress("restoring its boot"))
    live.cell(cell(retried=["no SSH"], lane="debian-13"))
    live.time_left(100)
    clock.seconds += 40
    after = screen(live)
    assert re.search(r"debian-13 +xpass +pass \(try 2\) +· +·\s", after)
    assert "debian-13: deploying: 2 of 38 MiB (1 done)\ndebian-13 #2: restoring its boot (0 done)\n" in after
    assert "2 of 4 cells (1 pass, 1 xpass), 0:00:40, about 0:01:00 left\n" in after
    clock.seconds += 100
    assert "0:02:20, time left unknown\n" in screen(live)
    live.lane("debian-13 #2", None)
    assert "#2" not in screen(live)
    live.lane("debian-13", None)
    assert "left" not in screen(live)


@pytest.mark.parametrize("spare", [-12, -1, 0, 12])
def test_squares_are_shown_if_they_fit(spare: int) -> None:
    """They are not even made if they cannot; that must never leave out those that fit."""
    cells = cells_to_run(guests=GUESTS, variants=" ".join(catalog.load_catalog().variants))
    height = len(screen(live_of(cells, width=80, height=1000)).splitlines()) + spare
    live = live_of(cells, width=80, height=height)
    assert screen(live).startswith("guest") is (spare >= 0)
    assert f"0 of {len(cells)} cells" in screen(live)


def test_a_square_that_a_shard_does_not_have_is_no_undecided_cell() -> None:
    cells = cells_to_run("0.10.7", "0.10.8", guests=GUESTS, variants="stock")
    lines = screen(live_of(cells[1:3])).splitlines()
    assert [line.count("·") for line in lines if line.startswith("debian")] == [1, 1]


# -- text from guests


def test_a_guest_cannot_steer_the_terminal_while_the_run_goes() -> None:
    out = StringIO()
    console = console_on(out, is_terminal=True)
    with live.open_view(console, cells_to_run(), [], quiet=False, verbose=False) as view:
        view.lane("debian-13", Progress(STEERING))
        view.note(STEERING)
        view.cell(told(STEERING))
    # The only escape sequences left are those with which rich moves the cursor.
    text = re.sub(r"\x1b\[(?:\?25[hl]|\d?A|2K)|[\r\n]", "", out.getvalue())
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    assert text.count(SAID) >= 2


def test_a_guest_cannot_add_a_line(tmp_path: Path) -> None:
    forged = "debian-12 stock 0.10.8: pass"
    text = f"{STEERING}\n2026-11-24T16:00:00.000Z {forged}"
    with pytest.raises(OSError, match="title"), open_log(tmp_path, Observer()) as log:
        log.lane("debian-13", Progress(text))
        log.note(text)
        log.cell(told(text))
        raise OSError(text)
    written = (tmp_path / RUN_LOG).read_text()
    assert SAID in written
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", written)
    assert forged not in [line.partition("Z ")[2] for line in written.splitlines()]


# -- the steps in the record

NOTE = Progress("this boot was slow")
TRYING = Progress("stock: trying x", Activity.TRIALS)
SUITE = Progress("stock: running the suite", Activity.SUITE)
WAITING = Progress("waiting for a processor", Activity.WAITING)
BEGINS = Progress("podman", Activity.SETUP)


@pytest.mark.parametrize(
    ("works", "steps"),
    [
        # A step lasts until the next of its lane.
        (
            [("a", BOOTING), ("b", BOOTING), ("a", upload(1)), ("a", upload(2)), ("b", None), ("a", None)],
            [("a", "booting", "START", 2), ("b", "booting", "START", 3), ("a", "deploying", "DEPLOY", 3)],
        ),
        # A text that is no step goes on with the work before it.
        (
            [("a", work) for work in (Progress("a note"), BOOTING, NOTE, None)],
            [("a", "a note", "OTHER", 1), ("a", "booting", "START", 1), ("a", NOTE.text, "START", 1)],
        ),
        # The suite under a remedy is part of trying it, up to the next cell.
        (
            [("a", work) for work in (SUITE, TRYING, WAITING, SUITE, BEGINS, SUITE, None)],
            [
                ("a", SUITE.text, "SUITE", 1),
                ("a", TRYING.text, "TRIALS", 1),
                ("a", WAITING.text, "WAITING", 1),
                ("a", SUITE.text, "TRIALS", 1),
                ("a", BEGINS.text, "SETUP", 1),
                ("a", SUITE.text, "SUITE", 1),
            ],
        ),
    ],
)
def test_the_steps_of_lanes_are_kept_with_their_work_and_seconds(
    works: list[tuple[str, Progress | None]],
    steps: list[tuple[str, str, str, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [datetime(2026, 11, 24, 16, tzinfo=UTC)]
    monkeypatch.setattr(observer, "datetime", SimpleNamespace(now=lambda _zone: now[0]))
    kept: list[LaneStep] = []
    lanes = LaneSteps(kept.append)
    # One thing a second.
    for lane, progress in works:
        lanes.lane(lane, progress)
        now[0] += timedelta(seconds=1)
    assert [(step.lane, step.text, step.activity.name, step.seconds) for step in kept] == steps


def test_a_prediction_is_shown_until_the_cell_is_decided_and_is_never_taken_for_a_result() -> None:
    stock, other = cells_to_run()
    out = StringIO()
    prediction = Prediction(says=Foreseen.BLOCKED, cause="userns-limit")
    table = LiveTable(console_on(out, is_terminal=True), [stock, other], [])
    table.prediction(stock, prediction)
    table.live.console.print(table.live.get_renderable())
    assert "~ userns-limit" in out.getvalue()
    assert "0 of 2 cells" in out.getvalue()
    out.truncate(0)
    table.cell(cell())
    table.live.console.print(table.live.get_renderable())
    assert "~" not in out.getvalue()
    lines: list[str] = []
    Lines(lines.append, 2).prediction(stock, prediction)
    assert lines == ["debian-13 stock 0.10.8: ~ userns-limit (the probes alone; its suite has not run)"]
