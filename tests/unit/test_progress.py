"""A run in progress, on a terminal and where there is none."""

import re
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console, RenderableType

from lab import catalog
from lab.builds.kinds.wheel import Wheel
from lab.plan import Cell, choose
from lab.record import Status
from lab.report import live as progress
from lab.report.live import Lines, LiveTable
from lab.run.observer import Silent
from tests.builders.cells import cell
from tests.builders.output import SAID, STEERING, told


def console_on(out: StringIO, *, is_terminal: bool = False) -> Console:
    return Console(file=out, width=240, force_terminal=is_terminal, color_system=None)


def cells_to_run(*builds: str) -> list[Cell]:
    choice = choose(catalog.load(), guests=["debian-13"], variants=["stock", "max-userns-zero"])
    return choice.cells([Wheel(name, name) for name in builds or ("0.10.8",)])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the progress display; it stands still until a test moves it."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.mark.parametrize(
    ("is_terminal", "quiet", "verbose", "kind"),
    [
        (True, False, False, LiveTable),
        (True, False, True, Lines),
        (False, False, False, Lines),
        (False, False, True, Lines),
        (True, True, False, Silent),
        (False, True, False, Silent),
    ],
)
def test_a_table_is_for_a_terminal_lines_are_for_the_rest_and_quiet_is_quiet(
    is_terminal: bool, quiet: bool, verbose: bool, kind: type[Silent]
) -> None:
    out = StringIO()
    console = console_on(out, is_terminal=is_terminal)
    with progress.view(console, cells_to_run(), [], quiet=quiet, verbose=verbose) as view:
        assert type(view) is kind
        view.lane("debian-13", "booting")
        view.note("a note")
        view.cell(cell())
        view.time_left(60)
    assert bool(out.getvalue()) is not quiet


def test_each_step_of_a_lane_and_each_decided_cell_is_a_line(clock: SimpleNamespace) -> None:
    out = StringIO()
    view = Lines(console_on(out), total=4, done=2)
    view.lane("debian-13", "booting")
    view.lane("debian-13 #2", "booting")
    clock.seconds += 7
    view.lane("debian-13", "booting")
    view.cell(cell())
    view.note("guests run under software emulation")
    view.lane("debian-13", "")
    view.lane("debian-13", "booting")
    view.cell(cell(variant="max-userns-zero", build="0.10.7", status=Status.ERROR, retried=["no SSH"]))
    assert out.getvalue().splitlines() == [
        "[    0 s] debian-13: booting",
        "[    0 s] debian-13 #2: booting",
        "[    7 s] 3/4 debian-13 stock 0.10.8: pass",
        "[    7 s] note: guests run under software emulation",
        "[    7 s] debian-13: booting",
        "[    7 s] 4/4 debian-13 max-userns-zero 0.10.7: error (try 2)",
    ]


def test_the_pieces_of_a_download_are_one_line() -> None:
    out = StringIO()
    view = Lines(console_on(out), 1, 0)
    for text in ("fetching checksums", "downloading: 1 of 600 MiB", "downloading: 2 of 600 MiB"):
        view.lane("ubuntu-24.04", f"image: {text}")
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "ubuntu-24.04: image: fetching checksums",
        "ubuntu-24.04: image: downloading",
    ]


def test_the_pieces_of_an_upload_are_one_line_and_each_in_the_table() -> None:
    out = StringIO()
    lines, live = Lines(console_on(out), 1, 0), LiveTable(console_on(StringIO()), cells_to_run(), [])
    for text in ("booting", "deploying: 1 of 38 MiB", "deploying: 2 of 38 MiB"):
        lines.lane("debian-13", text)
        live.lane("debian-13", text)
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "debian-13: booting",
        "debian-13: deploying",
    ]
    assert "debian-13: deploying: 2 of 38 MiB" in shown(live.live.get_renderable())


def shown(renderable: RenderableType) -> str:
    out = StringIO()
    console_on(out).print(renderable)
    return out.getvalue()


def test_the_table_fills_in_and_an_undecided_cell_is_a_dot(clock: SimpleNamespace) -> None:
    cells = cells_to_run("0.10.7", "0.10.8")
    live = LiveTable(console_on(StringIO()), cells, [cell(build="0.10.7", status=Status.XPASS)])
    before = shown(live.live.get_renderable())
    assert re.search(
        r"guest +stock 0.10.7 +stock 0.10.8 +max-userns-zero 0.10.7 +max-userns-zero 0.10.8", before
    )
    assert re.search(r"debian-13 +xpass +· +· +·\s", before)
    assert "1 of 4 cells, 0:00:00\n" in before
    live.lane("debian-13", "running the suite")
    live.lane("debian-13 #2", "restoring its boot")
    live.cell(cell(retried=["no SSH"], lane="debian-13"))
    live.time_left(100)
    clock.seconds += 40
    after = shown(live.live.get_renderable())
    assert re.search(r"debian-13 +xpass +pass \(try 2\) +· +·\s", after)
    assert "debian-13: running the suite (1 done)\ndebian-13 #2: restoring its boot (0 done)\n" in after
    assert "2 of 4 cells, 0:00:40, about 0:01:00 left\n" in after
    clock.seconds += 100
    assert "0:02:20, time left unknown\n" in shown(live.live.get_renderable())


def test_a_first_time_user_reads_that_the_time_left_is_unknown_until_it_is_known(
    clock: SimpleNamespace,
) -> None:
    live = LiveTable(console_on(StringIO()), cells_to_run(), [])
    live.lane("debian-13", "image: installing the guest's packages")
    assert "0:00:00, time left unknown\n" in shown(live.live.get_renderable())
    live.time_left(None)
    assert "time left unknown" in shown(live.live.get_renderable())
    live.time_left(100)
    assert "about 0:01:40 left" in shown(live.live.get_renderable())
    live.time_left(None)
    assert "time left unknown" in shown(live.live.get_renderable())


def test_where_the_squares_do_not_fit_the_screen_they_are_counted() -> None:
    choice = choose(catalog.load(), guests=["debian-12", "debian-13"], variants=list(catalog.load().variants))
    cells = choice.cells([Wheel("0.10.8", "0.10.8")])
    console = Console(file=StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    done = [cell(), cell(variant="podman", status=Status.FAIL), cell(variant="as-root")]
    live = LiveTable(console, cells, done)
    live.lane("debian-13", "booting")
    count = len(cells) // 2
    assert [line.split() for line in shown(live.live.get_renderable()).splitlines()[:4]] == [
        ["guest", "left", "pass", "fail"],
        ["debian-12", str(count)],
        ["debian-13", str(count - 3), "2", "1"],
        [],
    ]
    assert "debian-13: booting (0 done)\n3 of" in shown(live.live.get_renderable())


@pytest.mark.parametrize("spare", [-12, -1, 0, 12])
def test_squares_are_shown_if_they_fit(spare: int) -> None:
    """They are not even made if they cannot; that must never leave out those that fit."""
    choice = choose(catalog.load(), guests=["debian-12", "debian-13"], variants=list(catalog.load().variants))
    cells = choice.cells([Wheel("0.10.8", "0.10.8")])
    whole = LiveTable(Console(file=StringIO(), width=80, height=1000), cells, [])
    height = len(console_lines(whole, 80)) + spare
    live = LiveTable(Console(file=StringIO(), width=80, height=height), cells, [])
    assert (console_lines(live, 80)[0].split()[1] != "left") == (spare >= 0)


def console_lines(live: LiveTable, width: int) -> list[str]:
    out = StringIO()
    Console(file=out, width=width).print(live.live.get_renderable())
    return out.getvalue().splitlines()


def test_a_lane_that_ended_is_not_shown_and_without_lanes_no_time_is_left(clock: SimpleNamespace) -> None:
    live = LiveTable(console_on(StringIO()), cells_to_run(), [])
    live.lane("debian-13", "booting")
    live.lane("debian-13 #2", "booting")
    live.time_left(100)
    live.lane("debian-13 #2", "")
    assert "debian-13: booting" in shown(live.live.get_renderable())
    assert "#2" not in shown(live.live.get_renderable())
    live.lane("debian-13", "")
    assert "left" not in shown(live.live.get_renderable())


def test_a_square_that_a_shard_does_not_have_is_no_undecided_cell() -> None:
    live = LiveTable(console_on(StringIO()), cells_to_run("0.10.7", "0.10.8")[:3], [])
    assert re.search(r"debian-13 +· +· +·\s", shown(live.live.get_renderable()))
    first, second = choose(catalog.load(), guests=["debian-12", "debian-13"], variants=["stock"]).cells(
        [Wheel("0.10.7", "0.10.7"), Wheel("0.10.8", "0.10.8")]
    )[1:3]
    live = LiveTable(console_on(StringIO()), [first, second], [])
    lines = shown(live.live.get_renderable()).splitlines()
    assert [line.count("·") for line in lines if line.startswith("debian")] == [1, 1]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_guest_cannot_steer_the_terminal_while_the_run_goes(verbose: bool) -> None:
    out = StringIO()
    console = console_on(out, is_terminal=True)
    with progress.view(console, cells_to_run(), [], quiet=False, verbose=verbose) as view:
        view.lane("debian-13", STEERING)
        view.note(STEERING)
        view.cell(told(STEERING))
    # The only escape sequences left are those with which rich moves the cursor.
    text = re.sub(r"\x1b\[(?:\?25[hl]|\d?A|2K)|[\r\n]", "", out.getvalue())
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    assert text.count(SAID) >= (3 if verbose else 2)


def test_a_guest_cannot_add_a_line_to_the_progress() -> None:
    out = StringIO()
    view = Lines(console_on(out), 2, 0)
    view.cell(told("x\n[    1 s] 2/2 debian-12 stock 0.10.8: pass"))
    assert len(out.getvalue().splitlines()) == 1
