"""`lab matrix --hosts` as a process: ended in every way, and with wrong inventories."""

import re
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from lab.base.wait import Deadline, wait_for
from lab.record import RunResult, Status
from lab.record.folders import RUN_LOG
from tests.builders.processes import SECONDS
from tests.fleet.examples import Command, Fleet, HostExample, left_on

pytestmark = pytest.mark.timeout(900)
PLAN = [
    *("-g", "debian-12", "-g", "debian-13", "-v", "stock", "-v", "userns-clone-off"),
    *("--build", "0.10.8", "--no-remedies", "--no-experiment"),
]


def all_gone(host: HostExample) -> None:
    """Wait until no process of a host is left."""
    wait_for(lambda: not host.below() or None, Deadline(SECONDS, f"all of {host.name} to end"), interval=0.5)


def decided_once(folder: Path) -> None:
    run = RunResult.read(folder)
    assert {cell.status for cell in run.cells} == {Status.PASS}
    decided = re.findall(r"^\S+Z (\S+ \S+ 0\.10\.8): pass", (folder / RUN_LOG).read_text(), re.MULTILINE)
    assert Counter(decided) == Counter(f"{cell.guest} {cell.variant} {cell.build}" for cell in run.cells)


@pytest.mark.parametrize(
    "times",
    [
        pytest.param(0, id="SIGKILL"),
        pytest.param(1, id="Ctrl-C"),
        pytest.param(2, id="Ctrl-C twice", marks=pytest.mark.slow),
    ],
)
def test_an_ended_coordinator_leaves_nothing_behind(fleet: Fleet, tmp_path: Path, times: int) -> None:
    one = fleet.add("one", seconds=2)
    command = Command(fleet, *PLAN, "-o", str(tmp_path / "run"))
    command.wait_for("one: debian-1[23]: decided ")
    command.wait_for(": userns-clone-off: suite")
    if not times:
        command.process.kill()
    for _ in range(times):
        command.process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # Two at once may be delivered as one.
    assert command.ends() == (130 if times else -signal.SIGKILL)
    all_gone(one)
    assert left_on(fleet) == []
    if times == 1:
        first = RunResult.read(tmp_path / "run")
        assert first.run.interrupted
        assert {cell.reason for cell in first.cells if cell.status is not Status.PASS} == {"interrupted"}
        assert any(cell.status is Status.PASS for cell in first.cells)
    one.does()
    again = Command(fleet, "--resume", str(tmp_path / "run"))
    assert again.ends() == 0, again.printed()
    decided_once(tmp_path / "run")
    all_gone(one)
    assert left_on(fleet) == []


@pytest.mark.parametrize("redirection", ["> >(head -n 1)", ">/dev/full 2>/dev/full"])
def test_a_run_whose_output_is_lost_runs_all_cells(fleet: Fleet, tmp_path: Path, redirection: str) -> None:
    one = fleet.add("one", seconds=0.2)
    command = Command(fleet, *PLAN, "-o", str(tmp_path / "run"), redirection=redirection)
    assert command.ends() == 0, command.printed()
    decided_once(tmp_path / "run")
    assert RunResult.read(tmp_path / "run").run.finished is not None
    all_gone(one)


def test_bad_inventories_are_told_with_host_and_next_step(fleet: Fleet, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet.head = f"[coordinator]\nport = {port}\n"
        command = Command(fleet, *PLAN)
        assert command.ends() == 2, command.printed()
    assert re.search(f"nothing can listen on 127.0.0.1, port {port}: .*in use", command.printed())
    assert "set coordinator.address to an address of this host" in command.printed()
    fleet.head = ""
    fleet.add("good")
    fleet.add("closed", table="address = '127.0.0.1:1'")
    fleet.add("without-libvirt", environment="LAB_CONNECT=nowhere:///")
    command = Command(fleet, *PLAN, "-o", str(tmp_path / "run"))
    assert command.ends() == 0, command.printed()
    printed = " ".join(command.printed().split())
    assert "host closed: no login as " in printed
    assert "true` must work without a question" in printed
    assert re.search(r"host without-libvirt: .*exit status [23].* next: ", printed)
    decided_once(tmp_path / "run")
