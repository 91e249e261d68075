"""Real workers as processes on 127.0.0.1, with TLS; only their children are stand-ins."""

import signal
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

pytest.importorskip("distributed")

from lab.base.wait import Deadline, wait_for
from lab.fleet.address import Address
from lab.fleet.coordinator import Coordinator
from lab.fleet.engine import Engine
from lab.record import RunOptions, RunResult, Status
from lab.run import start
from tests.fleet.examples import Fleet, Running, running
from tests.fleet.sockets import is_loopback, reachable
from tests.unit.run_examples import KNOWN, PLAN, SMALL
from tests.unit.told import SECONDS, Told

pytestmark = pytest.mark.timeout(900)
ONE_GUEST = [cell for cell in PLAN if cell.guest.name == "debian-13"]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def evidence_is_whole(run: RunResult, folder: Path) -> None:
    """Each cell has its own evidence, from the host whose lane it names, and nothing of another run is left."""
    for cell in run.cells:
        [log] = cell.evidence
        host = cell.lane.partition(":")[0]
        assert (folder / log).read_text() == f"{cell.guest}/{cell.variant}/{cell.build} on {host}\n"
    assert {lane.label for lane in run.run.lanes} == {cell.lane for cell in run.cells}
    assert not [entry.name for entry in folder.iterdir() if entry.name.startswith(".arriving-")]


def decided_once(run: Running) -> bool:
    return set(Counter(cell.folder for cell in run.told.cells).values()) == {1}


def test_three_hosts_make_one_run(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", most_seconds=100.0) as run:
        for name in fleet.names:
            run.start_host(name, seconds=0.2)
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(PLAN)
        assert {cell.lane.partition(":")[0] for cell in result.cells} == set(fleet.names)
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")
        assert RunResult.read(tmp_path / "run") == result
        assert not result.run.interrupted
        # Each host measured its own processors; what lanes took is in the records of its parts.
        spent = result.run.processor_time
        assert sorted(each.host for each in spent) == sorted(fleet.names)
        assert sum(each.lanes for each in spent) == 1.5 * len(result.run.lanes)
        assert all(each.lab > 0 and each.wall > 0 for each in spent)
        assert any(
            lane.startswith("one: debian-1") and text.endswith(": suite") for lane, text in run.told.lanes
        )


def test_a_run_that_is_stopped_before_it_begins_waits_for_no_host(fleet: Fleet, tmp_path: Path) -> None:
    """As when all hosts of an inventory fail while the run's folder is made."""
    planned = start.begin(tmp_path / "run", PLAN, command="lab matrix", options=RunOptions(), shard=None)
    coordinator = Coordinator(planned, fleet.paths, Address("127.0.0.1", 0), fleet.security, Told())
    coordinator.stop()
    result = coordinator.run()
    assert result.run.interrupted
    assert {cell.status for cell in result.cells} == {Status.NOT_RUN}


def test_every_socket_of_every_process_is_on_loopback(fleet: Fleet, tmp_path: Path) -> None:
    # Servers of other tests may still be there.
    before = reachable(psutil.Process())
    with running(fleet, tmp_path / "run") as run:
        hosts = [run.start_host(name, seconds=60) for name in fleet.names]
        run.told.wait(lambda: sum("joined" in note for note in run.told.notes) == 3)
        run.told.wait(lambda: len({lane for lane, _ in run.told.lanes}) >= 2)
        own = {
            process.pid: process
            for host in hosts
            for process in [psutil.Process(host.process.pid), *host.children()]
        }
        found = {pid: reachable(process) for pid, process in own.items()}
        found[psutil.Process().pid] = reachable(psutil.Process()) - before
        assert len(found) >= 1 + 3 + 2
        # The coordinator's one port, and one for each worker.
        assert {pid: len(addresses) for pid, addresses in found.items() if addresses} == dict.fromkeys(
            [psutil.Process().pid, *(host.process.pid for host in hosts)], 1
        )
        assert all(is_loopback(ip) for addresses in found.values() for ip, _ in addresses), found


def test_sockets_that_others_can_reach_would_be_found() -> None:
    with ExitStack() as stack:
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0"),
            (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"),
            (socket.AF_INET6, socket.SOCK_STREAM, "::"),
            (socket.AF_INET6, socket.SOCK_DGRAM, "::"),
        ):
            if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
                continue
            opened = stack.enter_context(socket.socket(family, kind))
            opened.bind((address, 0))
            if kind == socket.SOCK_STREAM:
                opened.listen()
            assert (address, opened.getsockname()[1]) in reachable(psutil.Process())
            assert not is_loopback(address)
    assert not is_loopback("::ffff:10.0.0.1")
    assert all(is_loopback(address) for address in ("127.3.2.1", "::1", "::ffff:127.0.0.1"))


def test_a_host_that_is_killed_costs_its_part_a_second_try(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        one = run.start_host("one", seconds=60)
        run.told.wait(lambda: run.told.lanes)
        children = one.children()
        one.kill(signal.SIGKILL)
        run.start_host("two")
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(ONE_GUEST)
        assert {tuple(cell.retried) for cell in result.cells} == {("one was lost",)}
        assert run.told.noted("one has gone, in the middle of a part")
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")
        # The child did not outlive its worker.
        assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.usefixtures("no_rest")
def test_a_child_that_is_killed_costs_its_part_a_second_try(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        one = run.start_host("one", seconds=60)
        run.told.wait(lambda: run.told.lanes)
        one.does()
        [child] = one.children()
        child.kill()
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(ONE_GUEST)
        assert {tuple(cell.retried) for cell in result.cells} == {("the lab on one ended with exit status -9",)}
        assert decided_once(run)


def test_what_a_child_decided_before_it_failed_is_kept(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        one = run.start_host("one", status=4, after=2)
        run.told.wait(lambda: run.told.noted("ended with exit status 4"))
        one.does()
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(ONE_GUEST)
        assert sum(bool(cell.retried) for cell in result.cells) <= len(ONE_GUEST) - 2
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")


@pytest.mark.usefixtures("no_rest")
def test_a_part_that_ends_every_host_is_given_up(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        run.start_host("one", status=4)
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.ERROR}
        assert all("exit status 4" in cell.reason for cell in result.cells)


def test_a_host_with_another_lab_gets_no_parts_and_the_others_go_on(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        run.start_host("two", refuse="other definitions: seed")
        run.told.wait(lambda: run.told.noted("two gets no more parts: other definitions: seed"))
        run.start_host("one")
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(SMALL)
        assert [cell.retried for cell in result.cells] == [[]] * len(SMALL)
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"one"}


def test_an_interrupt_keeps_what_was_decided_and_the_run_is_resumed(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        one = run.start_host("one", seconds=1.5)
        run.told.wait(lambda: any(text.startswith("decided ") for _, text in run.told.lanes))
        run.coordinator.stop()
        first = run.finish()
        assert first.run.interrupted
        kept = [cell for cell in first.cells if cell.status is Status.PASS]
        assert 1 <= len(kept) < len(ONE_GUEST)
        assert {cell.reason for cell in first.cells if cell not in kept} == {"interrupted"}
        assert one.process.poll() is None
        resumed = start.resume(tmp_path / "run", RunResult.read(tmp_path / "run"), KNOWN)
        assert len(resumed.left) == len(ONE_GUEST) - len(kept)


def test_a_host_serves_one_coordinator_after_another(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "first", SMALL) as run:
        one = run.start_host("one")
        run.finish()
        port = int(run.address.rpartition(":")[2])
        with running(fleet, tmp_path / "second", SMALL, port=port) as again:
            result = again.finish()
            assert {cell.status for cell in result.cells} == {Status.PASS}
        assert one.said().count("joined the coordinator") == 2


@pytest.mark.usefixtures("no_rest")
def test_a_result_that_is_cut_off_is_asked_for_again(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        receiver = run.desk.intake.receiver
        whole = receiver.whole
        cut: list[str] = []

        def cut_off(token: str, size: int, digest: str) -> Path | None:
            file = whole(token, size, digest)
            if file and not cut:
                cut.append(token)
                receiver._arriving[token].size -= 10
                return whole(token, size, digest)
            return file

        monkeypatch.setattr(receiver, "whole", cut_off)
        run.start_host("one")
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert ["cut off" in cell.retried[0] for cell in result.cells] == [True] * len(ONE_GUEST)
        assert decided_once(run)


def test_a_silent_host_is_looked_for_each_second_and_not_once_in_the_time_that_it_has(
    fleet: Fleet, tmp_path: Path
) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        assert isinstance(run.desk.transport, Engine)
        looks = run.desk.transport._scheduler.periodic_callbacks["worker-ttl"]
        assert looks.is_running()
        assert looks.callback_time == 1000


def test_a_stopped_host_is_told_lost_and_its_late_result_dropped(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.fleet.engine.LOST_SECONDS", 6.0)
    monkeypatch.setattr("lab.fleet.engine.SILENT_SECONDS", 2.0)
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        one = run.start_host("one", seconds=3)
        run.told.wait(lambda: run.told.lanes)
        one.kill(signal.SIGSTOP)
        run.told.wait(lambda: run.told.noted("one has not answered for"))
        run.told.wait(lambda: run.told.noted("one has gone, in the middle of a part"))
        run.start_host("two", seconds=1)
        run.told.wait(lambda: any(lane.startswith("two: ") for lane, _ in run.told.lanes))
        one.kill(signal.SIGCONT)
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")


def test_two_hosts_of_one_name_are_not_both_taken(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        run.start_host("one", seconds=60)
        run.told.wait(lambda: run.told.lanes)
        second = fleet.start("two", run.address, called="one")
        wait_for(lambda: "name taken, one" in second.said() or None, Deadline(SECONDS, "it to be refused"))
        second.kill(signal.SIGTERM)
        assert second.process.wait(timeout=SECONDS) == 0
        assert second.said().count("name taken, one") == 1
