"""The lines about the hosts of a run on several, in a live view and in logs."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from lab import catalog
from lab.builds.kinds.wheel import Wheel
from lab.plan import Cell, choose
from lab.record import Status
from lab.report import host_lines, live
from lab.report.host_lines import HostLog
from lab.report.live import Lines, LiveTable
from lab.report.runlog import RunLog
from lab.run.journal import RUN_LOG
from lab.run.observer import Silent
from lab.run.several import HostNow, HostsNow, ToldCell
from tests.unit.examples import cell
from tests.unit.printed_examples import STEERING

ONE = HostNow("one", lanes=2, used=2, kvm=True)
TWO = HostNow("two", lanes=1, used=1, kvm=False)
TOLD = ToldCell("debian-13", "podman", "0.10.8", "one: debian-13", Status.XFAIL)


def now(*hosts: HostNow, told: tuple[ToldCell, ...] = (), left: float | None = 600.0) -> HostsNow:
    return HostsNow(hosts, told, decided=1, cells=8, seconds_left=left, is_typical=True)


def plan(*guests: str) -> list[Cell]:
    known = catalog.load()
    return choose(known, guests=guests or ["debian-13"], variants=["stock", "podman"]).cells(
        [Wheel("0.10.8", "0.10.8")]
    )


def console(width: int = 100, height: int = 40) -> Console:
    return Console(file=StringIO(), width=width, height=height, force_terminal=True, color_system=None)


def screen(view: LiveTable, width: int = 100) -> list[str]:
    """The lines of a live view as its console shows them."""
    out = Console(file=StringIO(), width=width, color_system=None)
    shown: RenderableType = view.live.get_renderable()
    with out.capture() as captured:
        out.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (ONE, "one: 2 of 2 lanes, KVM"),
        (TWO, "two: 1 of 1 lane, emulation"),
        (replace(TWO, silent=20.4), "two: 1 of 1 lane, emulation, has not answered for 20 s"),
        (replace(TWO, gone=True), "two: gone"),
        (
            replace(ONE, used=0, refused="another lab"),
            "one: 0 of 2 lanes, KVM, gets no more parts: another lab",
        ),
        (replace(ONE, used=0, rests_after=1), "one: 0 of 2 lanes, KVM, rests: its lab failed"),
        (replace(ONE, used=0, rests_after=3), "one: 0 of 2 lanes, KVM, rests: its lab failed 3 times in a row"),
    ],
)
def test_a_host_says_how_it_is(host: HostNow, text: str) -> None:
    assert host_lines.header(host) == text


def test_lanes_stand_below_their_hosts() -> None:
    view = LiveTable(console(), plan(), [])
    view.lane("two: debian-12", "booting")
    view.lane("one: debian-13", "podman: suite")
    view.lane("one: debian-12", "stock: suite")
    view.lane("two: debian-12 #2", "")
    view.hosts(now(ONE, TWO, told=(TOLD,)))
    view.time_left(600.0)
    lines = screen(view)
    assert lines[-6:-1] == [
        "one: 2 of 2 lanes, KVM",
        "  debian-13: podman: suite (1 done)",
        "  debian-12: stock: suite (0 done)",
        "two: 1 of 1 lane, emulation",
        "  debian-12: booting (0 done)",
    ]
    assert lines[-1] == "1 of 2 cells, 1 on their way, 0:00:00, about 0:10:00 left by typical times"


def test_a_cell_is_counted_once_whether_told_or_decided_and_not_when_it_is_lost() -> None:
    view = LiveTable(console(), plan(), [])
    view.hosts(now(ONE, told=(TOLD,)))
    assert screen(view)[1].split() == ["debian-13", "·", "(xfail)"]
    assert "1 of 2 cells, 1 on their way" in screen(view)[-1]
    view.cell(cell(variant="podman", status=Status.XFAIL))
    assert screen(view)[1].split() == ["debian-13", "·", "xfail"]
    assert "1 of 2 cells, 0:" in screen(view)[-1]
    lost = LiveTable(console(), plan(), [])
    lost.hosts(now(ONE, told=(TOLD,)))
    lost.hosts(now(replace(ONE, gone=True)))
    assert screen(lost)[1].split() == ["debian-13", "·", "·"]
    assert "0 of 2 cells, 0:" in screen(lost)[-1]


@pytest.mark.parametrize("height", [8, 12, 24, 40, 120])
def test_sixteen_hosts_never_fill_more_than_the_screen(height: int) -> None:
    guests = list(catalog.load().guests)
    view = LiveTable(console(80, height), plan(*guests), [])
    hosts = [HostNow(f"lab-{number}", 2, 2, kvm=True) for number in range(1, 17)]
    hosts[12] = replace(hosts[12], silent=21.0)
    hosts[3] = replace(hosts[3], gone=True, used=0)
    for host in hosts:
        for guest in ("debian-12", "debian-13"):
            view.lane(f"{host.name}: {guest}", "stock: running the tests of the jailer in the guest")
    view.hosts(now(*hosts))
    lines = screen(view, 80)
    assert len(lines) <= height
    named = {host.name for host in hosts if any(line.startswith(f"{host.name}: ") for line in lines)}
    # Whatever is not shown is counted, and who does not answer is shown.
    assert "lab-13" in named
    [more] = [line for line in lines if " more hosts: " in line] or [""]
    assert int(more.partition(" ")[0] or 0) == 16 - len(named)
    assert "2 of 8" not in lines[-1] and lines[-1].startswith(f"0 of {len(plan(*guests))} cells, 0:")


def test_images_that_the_coordinator_gets_stand_before_the_hosts() -> None:
    doing = {
        "coordinator: debian-12": "image: building",
        "one: debian-13": "booting",
        "coordinator: x": "image: y",
    }
    *whole, cut = host_lines.forms(now(ONE, TWO), doing, 2)
    assert [[line.plain for line in lines] for lines in (*whole, cut)] == [
        [
            "coordinator",
            "  debian-12: image: building",
            "  x: image: y",
            "one: 2 of 2 lanes, KVM",
            "  debian-13: booting",
            "two: 1 of 1 lane, emulation",
        ],
        [
            "coordinator; debian-12: image: building; x: image: y",
            "one: 2 of 2 lanes, KVM; debian-13: booting",
            "two: 1 of 1 lane, emulation",
        ],
        ["coordinator; debian-12: image: building; x: image: y", "2 hosts: 3 of 3 lanes"],
    ]
    *_, cut = host_lines.forms(now(ONE, TWO), doing, 1)
    assert [line.plain for line in cut] == ["2 hosts: 3 of 3 lanes"]


def test_hosts_that_are_not_shown_are_counted_by_how_they_are() -> None:
    hosts = [HostNow(f"lab-{number}", 2, 1, kvm=True) for number in range(1, 7)]
    hosts[0] = replace(hosts[0], gone=True)
    hosts[1] = replace(hosts[1], refused="another lab")
    hosts[5] = replace(hosts[5], silent=30.0)
    *_, lines = host_lines.forms(now(*hosts), {}, 3)
    assert [line.plain for line in lines] == [
        "lab-3: 1 of 2 lanes, KVM",
        "lab-6: 1 of 2 lanes, KVM, has not answered for 30 s",
        "4 more hosts: 3 of 6 lanes, 1 with no more parts, 1 gone",
    ]
    *_, lines = host_lines.forms(now(*hosts), {}, 0)
    assert [line.plain for line in lines] == [
        "6 hosts: 5 of 10 lanes, 1 not answering, 1 with no more parts, 1 gone"
    ]


def test_a_log_has_a_line_for_each_host_that_changed_and_now_and_then_how_far_the_run_is() -> None:
    log = HostLog()
    assert log.lines(now(ONE, TWO, told=(TOLD,)), 0.0) == [
        "host one: 2 of 2 lanes, KVM",
        "host two: 1 of 1 lane, emulation",
        "2 of 8 cells, 1 on their way, about 0:10:00 left by typical times",
    ]
    assert log.lines(now(ONE, TWO, left=599.0), 1.0) == []
    silent = replace(TWO, silent=16.0)
    assert log.lines(now(ONE, silent), 2.0) == ["host two: 1 of 1 lane, emulation, does not answer"]
    assert log.lines(now(ONE, replace(silent, silent=17.0)), 3.0) == []
    assert log.lines(now(ONE, replace(TWO, gone=True), left=None), 70.0) == [
        "host two: gone",
        "1 of 8 cells, time left unknown",
    ]
    ended = replace(now(replace(TWO, gone=True), left=0.0), decided=8)
    assert log.lines(ended, 140.0) == ["8 of 8 cells"]
    assert log.lines(now(), 300.0) == []


def test_the_same_lines_are_in_run_log_and_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = StringIO()
    view = Lines(Console(file=out, width=200), 8, 0)
    with RunLog(tmp_path, view) as log:
        log.hosts(now(ONE))
        log.hosts(now(replace(ONE, silent=20.0)))
    assert [line.partition("] ")[2] for line in out.getvalue().splitlines()] == [
        line.partition("Z ")[2] for line in (tmp_path / RUN_LOG).read_text().splitlines()
    ]
    assert len(out.getvalue().splitlines()) == 3


@pytest.mark.parametrize("verbose", [True, False])
def test_a_host_cannot_steer_the_terminal(verbose: bool) -> None:
    out = StringIO()
    where = Console(file=out, width=100, height=30, force_terminal=True, color_system=None)
    with live.view(where, plan(), [], quiet=False, verbose=verbose) as view:
        view.hosts(now(replace(ONE, refused=STEERING)))
    assert "\x1b]0;" not in out.getvalue()


def test_quiet_is_quiet_about_hosts() -> None:
    Silent().hosts(now(ONE))
