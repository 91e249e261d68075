"""What is shown of real workers while a run goes on: what they decided, who does not answer, who has gone."""

import signal
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from lab.record import Status
from lab.run.several import HostNow
from tests.fleet.examples import Fleet, Running, running
from tests.unit.run_examples import SMALL

pytestmark = pytest.mark.timeout(900)
ONE_GUEST = SMALL[:2]


def host(run: Running, name: str) -> HostNow | None:
    """How a host was when the hosts were told of last."""
    return next((each for now in run.told.now[-1:] for each in now.hosts if each.name == name), None)


def test_a_host_is_shown_from_its_joining_to_its_end_and_nothing_is_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.fleet.engine.LOST_SECONDS", 8.0)
    monkeypatch.setattr("lab.fleet.engine.SILENT_SECONDS", 2.0)
    with running(Fleet(tmp_path), tmp_path / "run", ONE_GUEST) as run:
        one = run.start_host("one", seconds=4)
        # It decides the first cell and begins the second one.
        run.told.wait(lambda: run.told.now and len(run.told.now[-1].told) == 1)
        first = run.told.now[-1]
        assert (first.decided, first.cells, first.told[0].lane) == (0, 2, "one: debian-12")
        assert first.hosts == (HostNow("one", lanes=1, used=1, kvm=False),)
        assert first.seconds_left is not None
        one.kill(signal.SIGSTOP)
        run.told.wait(lambda: (shown := host(run, "one")) and shown.silent)
        run.told.wait(lambda: (shown := host(run, "one")) and shown.gone)
        # What it told has gone with it.
        assert (run.told.now[-1].told, run.told.now[-1].decided) == ((), 0)
        run.start_host("two")
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert all(now.decided + len(now.told) <= len(ONE_GUEST) for now in run.told.now)
