"""A host whose clock is an hour off: what its certificates, timeouts, archives and record are worth."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from lab.record import RunResult, Status
from tests.fleet import clocks
from tests.fleet.examples import Fleet, HostProcess, Running, running
from tests.unit.run_examples import PLAN, SMALL
from tests.unit.told import SECONDS

HOUR = timedelta(hours=1)
FAST, SLOW = HOUR, -HOUR
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def library() -> Path:
    found = clocks.library()
    if found is None:
        pytest.skip("no libfaketime; ./setup.sh test installs it")
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
