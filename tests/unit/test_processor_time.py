"""What a lane's machines and a run take of the host's processors, and how that is said."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.machine import qemu
from lab.record import LaneRecord, ProcessorTime, RunInfo, RunResult
from lab.report import table
from lab.run import lanes

LANE = "lab-debian-13-2d2671"
QEMU = ["/usr/bin/qemu-system-x86_64", "-name", f"guest={LANE},debug-threads=on"]


class FakeProcess:
    def __init__(self, name: str, command: Sequence[str], user: float, *, gone: bool = False) -> None:
        self._name, self._command, self._user, self._gone = name, list(command), user, gone

    def name(self) -> str:
        return self._name

    def cmdline(self) -> list[str]:
        if self._gone:
            raise psutil.NoSuchProcess(1)
        return self._command

    def cpu_times(self) -> Any:
        # As psutil has them: beside the time of its children, which is not its own.
        return SimpleNamespace(user=self._user, system=0.5, children_user=100.0, children_system=100.0)


@pytest.mark.parametrize(
    ("process", "seconds"),
    [
        (FakeProcess("qemu-system-x86", QEMU, 40.0), 40.5),
        (FakeProcess("qemu-system-x86", ["qemu", "-name", f"guest={LANE}1,debug-threads=on"], 40.0), 0.0),
        (FakeProcess("vim", ["vim", f"guest={LANE},notes"], 3.0), 0.0),
        (FakeProcess("qemu-system-x86", QEMU, 40.0, gone=True), 0.0),
    ],
)
def test_a_lane_takes_what_its_qemu_takes(
    monkeypatch: pytest.MonkeyPatch, process: FakeProcess, seconds: float
) -> None:
    monkeypatch.setattr(psutil, "process_iter", lambda: [process])
    assert qemu.processor_seconds(LANE) == seconds


def test_a_session_is_measured_from_its_start_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # One lane's machine was not measured, and the kernel counts less waiting for a disk than before.
    opened = [
        LaneRecord(guest="debian-13", image="1" * 64, fork="memory", seconds={}, processor_seconds=seconds)
        for seconds in (40.0, 20.0, None)
    ]
    for idle_now, idle in ((530.0, 30.0), (499.0, 0.0)):
        monkeypatch.setattr(lanes, "clocks", lambda now=idle_now: (70.0, 13.0, now))
        session = lanes.processor_time((20.0, 10.0, 500.0), opened)
        assert (session.wall, session.lanes, session.lab, session.idle) == (50.0, 60.0, 3.0, idle)
        assert session.processors == os.cpu_count()


def run_of(*sessions: ProcessorTime) -> RunResult:
    info = RunInfo(
        id="run", started=datetime.now(UTC), command="lab matrix", lab="1", processor_time=list(sessions)
    )
    return RunResult(run=info, cells=[])


def test_a_run_says_how_busy_it_kept_the_processors() -> None:
    one = ProcessorTime(processors=2, wall=415.0, lanes=649.0, lab=38.0, idle=100.0)
    assert table.time_lines(run_of()) == []
    assert table.time_lines(run_of(one)) == [
        "the run took 0:06:55; it kept 2 processors busy for 0:11:27 of 2 x 0:06:55 (the lab itself 5 %); "
        "other programs 5 %, idle 12 %"
    ]
    alone = ProcessorTime(processors=1, wall=100.0, lanes=80.0, lab=10.0, idle=10.0)
    assert table.time_lines(run_of(one, alone))[1] == (
        "session 2 took 0:01:40; it kept the processor busy for 0:01:30 of 0:01:40 (the lab itself 10 %); "
        "other programs 0 %, idle 10 %"
    )
