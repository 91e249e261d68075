"""What a lane's machine takes of the host's processors."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.machine import qemu

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
    assert qemu.measure_processor_seconds(LANE) == seconds
