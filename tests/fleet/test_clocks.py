"""A clock that is an hour off, or is set by an hour, and a coordinator that stands still.

What certificates, timeouts, archives and the record are worth then.
"""

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from tornado.ioloop import IOLoop

from lab.fleet.regular import Regular
from lab.record import RunResult, Status
from tests.fleet import clocks
from tests.fleet.command import LOST, Command
from tests.fleet.examples import Fleet, HostProcess, Running, running
from tests.unit.run_examples import PLAN, SMALL
from tests.unit.told import SECONDS, run_in_a_loop

HOUR = timedelta(hours=1)
FAST, SLOW = HOUR, -HOUR
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def library() -> Path:
    found = clocks.library()
    if found is None:
        pytest.skip("no libfaketime; ./setup.sh doctor installs it")
    return found


def start_off(run: Running, name: str, off: timedelta, library: Path, **control: Any) -> HostProcess:
    return run.fleet.start(name, run.address, environment=clocks.off_by(off, library), clock=True, **control)


def clock(host: HostProcess) -> timedelta:
    """By how much the clock of a host is off, as it says itself."""
    [line] = [line for line in host.said().splitlines() if line.startswith("clock: ")]
    return timedelta(seconds=float(line.split()[1]) - host.log.stat().st_ctime)


def test_two_clocks_that_are_an_hour_off_change_no_result(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.fleet.engine.LOST_SECONDS", 20.0)
    # Certificates as they are on the second day: both clocks are within their time.
    fleet, begun = Fleet(tmp_path, issued=datetime.now(UTC) - timedelta(days=1)), datetime.now(UTC)
    with running(fleet, tmp_path / "run", most_seconds=100.0) as run:
        # A part takes long enough for several heartbeats.
        hosts = [
            start_off(run, "one", FAST, library, seconds=1),
            start_off(run, "two", SLOW, library, seconds=1),
            run.start_host("three", seconds=1),
        ]
        run.told.wait(lambda: sum("joined" in note for note in run.told.notes) == 3)
        result = run.finish()
        assert [abs(clock(host) - off) < HOUR / 2 for host, off in zip(hosts, (FAST, SLOW), strict=False)] == [
            True,
            True,
        ]
    assert [cell.status for cell in result.cells] == [Status.PASS] * len(PLAN)
    assert [cell.retried for cell in result.cells] == [[]] * len(PLAN)
    assert set(Counter(cell.folder for cell in run.told.cells).values()) == {1}
    assert {cell.lane.partition(":")[0] for cell in result.cells} == set(fleet.names)
    # A host that answers is never taken for silent or lost.
    assert not run.told.noted("has not answered")
    assert not run.told.noted("in the middle of a part")
    # The times of the run are the coordinator's.
    assert result.run.finished is not None
    assert begun - timedelta(minutes=1) < result.run.started <= result.run.finished
    assert result.run.finished < datetime.now(UTC) + timedelta(minutes=1)
    assert RunResult.read(tmp_path / "run") == result


def test_a_host_whose_clock_is_slow_says_so_of_a_new_certificate(tmp_path: Path, library: Path) -> None:
    with running(Fleet(tmp_path), tmp_path / "run", SMALL) as run:
        host = start_off(run, "one", SLOW, library)
        assert host.process.wait(timeout=SECONDS) == 2
        assert "is not valid before" in host.said()
        assert "earlier: this host's clock is slow" in host.said()
        # One that does not look itself learns of it from TLS, and the coordinator tells that nobody joined.
        careless = start_off(run, "two", SLOW, library, any_date=True)
        assert careless.process.wait(timeout=SECONDS) == 2
        assert "is not trusted: certificate is not yet valid" in careless.said()
        run.told.wait(lambda: run.told.noted("refused, and the connection closed: a TLS handshake with"))
        # And a clock that is fast joins.
        start_off(run, "three", FAST, library)
        assert {cell.status for cell in run.finish().cells} == {Status.PASS}


def test_a_host_whose_clock_is_fast_says_so_of_a_certificate_that_ends_within_the_hour(
    tmp_path: Path, library: Path
) -> None:
    fleet = Fleet(tmp_path, issued=datetime.now(UTC) - timedelta(days=30) + HOUR / 2)
    with running(fleet, tmp_path / "run", SMALL) as run:
        host = start_off(run, "one", FAST, library)
        assert host.process.wait(timeout=SECONDS) == 2
        assert "expired on" in host.said()
        assert "if the clock is wrong, set it" in host.said()
        run.start_host("two")
        assert {cell.status for cell in run.finish().cells} == {Status.PASS}


TWO_PARTS = ["-g", "debian-12", "-g", "debian-13", "-v", "stock", "-v", "userns-clone-off", "--build", "0.10.8"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def at_work(
    stack: ExitStack,
    folder: Path,
    *,
    seconds: float,
    own: dict[str, str] | None = None,
    theirs: dict[str, str] | None = None,
) -> tuple[Fleet, Command]:
    """A run of two parts, each on a host of its own, which both run; a cell takes so many seconds.

    `own` is the coordinator's environment, and `theirs` the hosts'.
    """
    # Certificates as they are on the second day: wherever a clock is set, it is within their time.
    fleet = Fleet(folder, issued=datetime.now(UTC) - timedelta(days=1))
    stack.callback(fleet.end)
    out = str(folder / "run")
    run = Command(fleet, *TWO_PARTS, "--no-remedies", "-o", out, impatient=True, environment=own)
    for name in ("one", "two"):
        fleet.start(name, run.address, seconds=seconds, environment=theirs)
    for guest in ("debian-12", "debian-13"):
        run.wait_for(f"(one|two): {guest}: (stock|userns)")
    return fleet, run


def no_host_was_lost(run: Command, folder: Path) -> None:
    """Each cell was decided once, on the host that got it first."""
    assert run.ends() == 0, run.said()
    for trouble in ("has gone", "a second time", "no host that could"):
        assert trouble not in run.said()
    # A host with much to do may be told as silent for some seconds.
    assert not re.search(r"has not answered for \d\d", run.said())
    result = RunResult.read(folder / "run")
    assert [(cell.status, cell.retried) for cell in result.cells] == [(Status.PASS, [])] * 4
    assert len(result.run.lanes) == 2


def test_a_coordinator_that_stands_still_loses_no_host(tmp_path: Path, stack: ExitStack) -> None:
    _, run = at_work(stack, tmp_path, seconds=2)
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(LOST + 2.0)
    run.process.send_signal(signal.SIGCONT)
    no_host_was_lost(run, tmp_path)


def test_a_coordinator_whose_clock_is_set_forward_loses_no_host(
    tmp_path: Path, stack: ExitStack, library: Path
) -> None:
    clock = clocks.Clock(tmp_path, library)
    _, run = at_work(stack, tmp_path, seconds=4, own=clock.environment)
    # Between two heartbeats of a host at least once.
    for hours in range(1, 11):
        clock.off_by(hours * FAST)
        time.sleep(0.7)
    no_host_was_lost(run, tmp_path)


def test_a_coordinator_whose_clock_is_set_back_finds_a_lost_host(
    tmp_path: Path, stack: ExitStack, library: Path
) -> None:
    clock = clocks.Clock(tmp_path, library)
    fleet, run = at_work(stack, tmp_path, seconds=3, own=clock.environment)
    clock.off_by(SLOW)
    fleet.hosts["one"].kill(signal.SIGSTOP)
    run.wait_for("one has gone, in the middle of a part")
    assert run.ends() == 0, run.said()
    assert sorted(cell.retried for cell in RunResult.read(tmp_path / "run").cells) == [
        [],
        [],
        ["one was lost"],
        ["one was lost"],
    ]


def test_a_host_whose_clock_is_set_back_is_heard_as_before(
    tmp_path: Path, stack: ExitStack, library: Path
) -> None:
    clock = clocks.Clock(tmp_path, library)
    _, run = at_work(stack, tmp_path, seconds=LOST * 0.7, theirs=clock.environment)
    clock.off_by(SLOW)
    no_host_was_lost(run, tmp_path)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_what_dask_does_regularly_goes_on_when_the_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    calls: list[float] = []
    off = [0.0]
    clock = time.time
    monkeypatch.setattr(IOLoop, "time", lambda self: clock() + off[0])

    async def play() -> None:
        regular = Regular(lambda: calls.append(clock()), 10.0)
        regular.start()
        async with asyncio.timeout(60):
            for count in (3, 6):
                while len(calls) < count:
                    await asyncio.sleep(0.01)
                off[0] = jump
        regular.stop()

    run_in_a_loop(play())
    # Three before the clock was set, and three after that.
    assert len(calls) >= 6
