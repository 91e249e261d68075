"""`lab matrix --hosts` as a process that is interrupted or killed: what its hosts do, and how it is resumed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("distributed")

from lab.base.wait import Deadline, wait_for
from lab.record import RunResult, Status
from tests.fleet.command import Command
from tests.fleet.examples import ROOT, Fleet, HostProcess
from tests.unit.told import SECONDS

pytestmark = pytest.mark.timeout(900)
CELLS = ["-g", "debian-13", "-v", "stock", "-v", "kvm-denied", "-v", "userns-clone-off"]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def begin(fleet: Fleet, folder: Path) -> tuple[Command, HostProcess, list[psutil.Process]]:
    """A run whose host has decided a cell and is at work at the next."""
    command = Command(fleet, *CELLS, "--build", "0.10.8", "--no-remedies", "-o", str(folder))
    host = fleet.start("one", command.address, seconds=3)
    command.wait_for("decided stock")
    command.wait_for("debian-13: kvm-denied")
    return command, host, host.children()


def resumes(fleet: Fleet, folder: Path) -> RunResult:
    command = Command(fleet, "--resume", str(folder))
    fleet.start("two", command.address)
    assert command.ends() == 0, command.said()
    run = RunResult.read(folder)
    assert [cell.status for cell in run.cells] == [Status.PASS] * 3
    assert not [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]
    return run


def test_ctrl_c_keeps_what_hosts_decided_and_the_run_is_resumed(fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    try:
        command, host, children = begin(fleet, folder)
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == 130
        run = RunResult.read(folder)
        assert run.run.interrupted
        assert [cell.status for cell in run.cells].count(Status.PASS) >= 1
        assert [cell.status for cell in run.cells].count(Status.NOT_RUN) >= 1
        assert psutil.wait_procs(children, timeout=SECONDS)[1] == []
        assert host.process.poll() is None
        again = resumes(fleet, folder)
        assert {cell.lane.partition(":")[0] for cell in again.cells} == {"one", "two"}
    finally:
        fleet.end()


@pytest.mark.parametrize("how", ["Ctrl-C twice", "kill -9"])
def test_a_coordinator_that_ends_at_once_takes_its_hosts_parts_with_it(
    fleet: Fleet, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "run"
    try:
        command, host, children = begin(fleet, folder)
        if how == "kill -9":
            command.process.kill()
        else:
            command.process.send_signal(signal.SIGINT)
            time.sleep(0.2)  # Two signals at once may be delivered as one.
            command.process.send_signal(signal.SIGINT)
        assert command.ends() in (130, -signal.SIGKILL)
        assert psutil.wait_procs(children, timeout=SECONDS)[1] == []
        wait_for(
            lambda: "has gone" in host.said() or None, Deadline(SECONDS, "the host to notice"), interval=0.05
        )
        assert host.process.poll() is None
        resumes(fleet, folder)
    finally:
        fleet.end()


def test_an_interrupt_of_the_test_suite_leaves_no_process(tmp_path: Path) -> None:
    name = test_a_coordinator_that_ends_at_once_takes_its_hosts_parts_with_it.__name__
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", name]
    suite = psutil.Popen([*words, f"--basetemp={tmp_path}"], cwd=ROOT, stdout=subprocess.DEVNULL)

    def at_work() -> list[psutil.Process] | None:
        return children if len(children := suite.children(recursive=True)) > 2 else None

    started = wait_for(at_work, Deadline(SECONDS, "a coordinator, a host and its child"), interval=0.05)
    # As a runner in CI does it. Ctrl-C on a terminal goes to all of them.
    suite.send_signal(signal.SIGINT)
    assert suite.wait(SECONDS) == pytest.ExitCode.INTERRUPTED
    assert psutil.wait_procs(started, timeout=SECONDS)[1] == []


def tries(fleet: Fleet, command: Command, name: str = "two") -> HostProcess:
    """A host that is in the middle of the trials of the first cell."""
    host = fleet.start(name, command.address, trials=3600)
    command.wait_for(f"{name}: debian-13.*: trying a remedy")
    return host


def test_what_was_left_of_a_cell_s_trials_is_made_on_another_host(fleet: Fleet, tmp_path: Path) -> None:
    """And nothing is lost of what the suite showed on the first one."""
    folder = tmp_path / "run"
    try:
        command = Command(fleet, *CELLS, "--build", "0.10.8", "-o", str(folder))
        tries(fleet, command, "one")
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == 130
        before = RunResult.read(folder)
        [half] = [cell for cell in before.cells if cell.unfinished]
        fleet.end()
        command = Command(fleet, "--resume", str(folder))
        fleet.start("two", command.address, trials=0)
        assert command.ends() == 1, command.said()
        run = RunResult.read(folder)
        assert [[each.name for each in cell.remedies] for cell in run.cells] == [["a"]] * 3
        assert not any(cell.has_more_to_try for cell in run.cells)
        [cell] = [cell for cell in run.cells if cell.folder == half.folder]
        assert cell.lanes == ("one: debian-13", "two: debian-13")
        assert half.evidence == [f"{cell.folder}/kernel.log", f"{cell.folder}/probes.json"]
        assert cell.evidence == [*half.evidence, f"{cell.folder}/remedies/a/a.log"]
        assert (folder / cell.evidence[0]).read_text().endswith(" on one\n")
        assert (folder / cell.evidence[2]).read_text() == "tried on two\n"
        assert {each.lane for each in run.cells if each is not cell} == {"two: debian-13"}
    finally:
        fleet.end()


def test_a_child_that_dies_in_trials_costs_no_suite(fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    try:
        command = Command(fleet, *CELLS[:4], "--build", "0.10.8", "-o", str(folder))
        fleet.start("one", command.address, trials=0, dies=True)
        assert command.ends() == 1, command.said()
        [cell] = RunResult.read(folder).cells
        assert cell.lanes == ("one: debian-13", "one: debian-13 #2")
        [fault] = cell.retried
        assert "exit status -9" in fault
        assert [Path(each).name for each in cell.evidence] == ["kernel.log", "probes.json", "a.log"]
    finally:
        fleet.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_host_that_is_ended_takes_its_child_down(fleet: Fleet, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "run"
    try:
        command, host, children = begin(fleet, folder)
        host.kill(number)
        assert host.process.wait(timeout=SECONDS) == 0
        assert psutil.wait_procs(children, timeout=SECONDS)[1] == []
        command.wait_for("one has gone, in the middle of a part")
        fleet.start("two", command.address)
        assert command.ends() == 0
        assert "refused" not in command.said()
        assert all(cell.retried == ["one was lost"] for cell in RunResult.read(folder).cells)
    finally:
        fleet.end()
