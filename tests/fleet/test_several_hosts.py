"""Real workers of dask's, started over SSH on 127.0.0.1; only their children are stand-ins."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("distributed")

import dask.config
from distributed import Client

from lab.base.activity import Activity
from lab.base.errors import LabError
from lab.base.wait import Deadline, wait_for
from lab.fleet import coordinator, images
from lab.record import RunOptions, RunResult, Status
from lab.run import start
from tests.builders.processes import SECONDS
from tests.builders.runs import KNOWN, PLAN, SMALL
from tests.fleet.examples import Fleet, HostExample, Running, left_on, running
from tests.fleet.sockets import is_loopback, reachable

pytestmark = pytest.mark.timeout(900)
ONE_GUEST = [cell for cell in PLAN if cell.guest.name == "debian-13"]


def table(run: RunResult) -> dict[Path, object]:
    """What a run says of each cell, wherever it ran."""
    return {cell.folder: (cell.status, cell.reason, cell.causes, cell.tests) for cell in run.cells}


def evidence_is_whole(run: RunResult, folder: Path) -> None:
    """Each cell has its own evidence, from the host whose lane it names; nothing of another run is left."""
    for cell in run.cells:
        [log] = cell.evidence
        host = cell.history.lane.partition(":")[0]
        assert (folder / log).read_text() == f"{cell.guest}/{cell.variant}/{cell.build} on {host}\n"
    assert {lane.label for lane in run.run.lanes} == {cell.history.lane for cell in run.cells}
    assert not list(folder.glob(".arriving-*"))
    assert not (folder / coordinator.CREDENTIALS).exists()


def decided_once(run: Running) -> bool:
    return set(Counter(cell.folder for cell in run.told.cells).values()) == {1}


def test_three_hosts_find_what_one_finds_and_nothing_is_left_on_them(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add("one", seconds=0.3)
    planned = start.begin_run(tmp_path / "first", PLAN, command="lab matrix", options=RunOptions())
    with running(fleet, planned=planned) as run:
        alone = run.finish()
    fleet.add("two", seconds=0.3)
    fleet.add("three", seconds=0.3)
    with running(fleet, most_seconds=100.0) as run:
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(PLAN)
        assert table(result) == table(alone)
        assert len({cell.history.lane.partition(":")[0] for cell in result.cells}) > 1
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")
        suites = {step.lane for step in result.run.steps if step.activity is Activity.SUITE}
        assert suites == {cell.history.lane for cell in result.cells}
        assert set(result.run.host_names) == {"one", "two", "three"}
        assert RunResult.read(tmp_path / "run") == result
    assert left_on(fleet) == []


def test_every_socket_of_every_process_is_on_loopback(fleet: Fleet) -> None:
    before = reachable(psutil.Process())  # Servers of other tests may still be there.
    hosts = [fleet.add(name, seconds=60) for name in ("one", "two", "three")]
    with running(fleet, most_seconds=100.0) as run:
        run.told.wait(lambda: sum(" joined: " in note for note in run.told.notes) == 3)
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        own = [process for host in hosts for process in (host.worker(), *host.children())]
        sockets = {process.pid: reachable(process) for process in own}
        sockets[psutil.Process().pid] = reachable(psutil.Process()) - before
        sockets[fleet.server.process.pid] = reachable(psutil.Process(fleet.server.process.pid))
        counted = {pid: len(addresses) for pid, addresses in sockets.items()}
        # A worker has one port. This process has dask's scheduler, and a way to each worker; no HTTP server.
        assert [counted[host.worker().pid] for host in hosts] == [1, 1, 1]
        assert counted[psutil.Process().pid] == 1 + 3
        assert all(is_loopback(ip) for addresses in sockets.values() for ip, _ in addresses), sockets
        for host in hosts:
            host.does()


@pytest.mark.parametrize(
    ("killed", "fault", "note"),
    [
        (HostExample.worker, "one was lost", "one was lost with part"),
        (
            lambda host: host.children()[0],
            "the lab on one ended with exit status -9",
            "ended with exit status -9",
        ),
    ],
    ids=["worker", "child"],
)
def test_what_is_killed_costs_its_part_a_second_try(
    fleet: Fleet, tmp_path: Path, killed: Callable[[HostExample], psutil.Process], fault: str, note: str
) -> None:
    one = fleet.add("one", seconds=60)
    with running(fleet, ONE_GUEST) as run:
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        one.does()
        children = one.children()
        killed(one).kill()
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(ONE_GUEST)
        assert {tuple(cell.history.retried) for cell in result.cells} == {(fault,)}
        assert run.told.noted(note)
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")
        assert psutil.wait_procs(children, timeout=60)[1] == []
    assert left_on(fleet) == []


def test_what_a_child_decided_before_it_failed_is_kept(fleet: Fleet, tmp_path: Path) -> None:
    one = fleet.add("one", status=4, after=2)
    with running(fleet, ONE_GUEST) as run:
        run.told.wait(lambda: run.told.noted("ended with exit status 4"))
        one.does()
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(ONE_GUEST)
        assert sum(bool(cell.history.retried) for cell in result.cells) <= len(ONE_GUEST) - 2
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")


def test_a_host_whose_lab_fails_at_once_uses_up_no_part_while_another_is_at_work(fleet: Fleet) -> None:
    fleet.add("bad", status=4)
    good = fleet.add("good", seconds=1)
    with running(fleet, most_seconds=100.0) as run:
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(PLAN)
        assert {cell.history.lane.partition(":")[0] for cell in result.cells} == {good.name}
        retried = [cell.history.retried for cell in result.cells]
        assert max(map(len, retried)) <= 1, retried


def test_a_host_that_is_not_reached_once_is_called_again(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.add("one")
    calls: list[str] = []
    push, call = images.push_image, Client.run

    def push_later(*arguments: Any) -> None:
        if not calls:
            raise LabError("the disk is full there")
        push(*arguments)

    def call_later(client: Client, function: Callable[..., object], *arguments: Any, **options: Any) -> object:
        if function is images.report_failure:
            calls.append(arguments[1])
            if len(calls) == 1:
                # What dask does when it cannot connect to a worker in time.
                raise OSError("Timed out trying to connect")
        return call(client, function, *arguments, **options)

    monkeypatch.setattr(images, "push_image", push_later)
    monkeypatch.setattr(Client, "run", call_later)
    with running(fleet, ONE_GUEST) as run:
        result = run.finish()
    assert [cell.status for cell in result.cells] == [Status.PASS] * len(ONE_GUEST)
    assert calls == ["the disk is full there"] * 2


def test_a_part_that_ends_every_lab_is_given_up(fleet: Fleet) -> None:
    fleet.add("one", status=4)
    with running(fleet, ONE_GUEST) as run:
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.ERROR}
        assert all("exit status 4" in cell.reason for cell in result.cells)
        assert decided_once(run)


def test_a_host_with_other_definitions_gets_no_parts_and_the_others_go_on(fleet: Fleet) -> None:
    fleet.add("bad", refuse="other definitions: seed")
    fleet.add("good", seconds=1)
    with running(fleet, PLAN, most_seconds=100.0) as run:
        result = run.finish()
        assert run.told.noted("bad gets no more parts: error: other definitions: seed")
        assert [cell.status for cell in result.cells] == [Status.PASS] * len(PLAN)
        assert [cell.history.retried for cell in result.cells] == [[]] * len(PLAN)
        assert {cell.history.lane.partition(":")[0] for cell in result.cells} == {"good"}


def test_no_host_that_can_run_a_cell_is_its_reason(fleet: Fleet) -> None:
    fleet.add("small", table="memory_mib = 1000")
    with running(fleet, SMALL) as run:
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.NOT_RUN}
        assert all("small has 1000 MiB" in cell.reason for cell in result.cells)


def test_what_a_suite_showed_stands_if_its_child_dies_at_trials(fleet: Fleet, tmp_path: Path) -> None:
    """The trials are left to a run on one host."""
    fleet.add("one", trials=True, dies=True)
    with running(fleet, ONE_GUEST[:2]) as run:
        first, second = run.finish().cells
        assert decided_once(run)
    assert (first.status, first.remedies, first.history.unfinished) == (Status.FAIL, [], True)
    assert (second.status, second.history.unfinished) == (Status.FAIL, False)
    assert "exit status -9" in second.history.retried[0]
    folder = tmp_path / "run"
    assert (folder / first.folder / "kernel.log").exists()
    assert (folder / second.folder / "remedies/a/a.log").read_text() == "tried on one\n"
    planned = start.resume_run(folder, RunResult.read(folder), KNOWN)
    assert [cell.folder for cell in planned.cells_to_run] == [first.folder]
    with running(fleet, planned=planned) as again:
        assert again.finish().cells == [first, second]


@pytest.mark.parametrize("what", ["workers", "link"])
def test_what_stands_still_is_lost_once_and_late_results_go(fleet: Fleet, tmp_path: Path, what: str) -> None:
    """All workers at once, or the SSH server through which they are reached: that is one loss of the part."""
    hosts = [fleet.add(name, seconds=3) for name in ("one", "two", "three")]
    with dask.config.set({"distributed.scheduler.worker-ttl": "6s"}), running(fleet, ONE_GUEST) as run:
        for host in hosts:
            run.told.wait(partial(run.told.noted, f"{host.name} joined"))
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        server = psutil.Process(fleet.server.process.pid)
        still = [host.worker() for host in hosts] if what == "workers" else [server]
        for host in hosts:
            host.does(seconds=1)
        for process in still:
            process.suspend()
        try:
            run.told.wait(lambda: run.told.noted("was lost with part"))
        finally:
            server.resume()
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        # dask may have passed it from one to the next, before it looked at that one.
        assert dask.config.get("distributed.scheduler.allowed-failures") >= 3 * len(hosts) - 1
        assert [note for note in run.told.notes if "lost with its host" in note] == []
        assert decided_once(run)
        evidence_is_whole(result, tmp_path / "run")
    wait_for(lambda: not any(host.below() for host in hosts) or None, Deadline(SECONDS, "all workers to end"))
    assert left_on(fleet) == []


def test_a_run_without_any_host_ends_with_the_reasons_and_the_next_step(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add("nowhere", table='python = "/nowhere/python"')
    fleet.add("closed", table="address = '127.0.0.1:1'")
    with running(fleet, SMALL) as run, pytest.raises(LabError, match="no host is left") as raised:
        run.finish()
    assert "host nowhere: " in str(raised.value)
    assert "set `python` of hosts.nowhere" in str(raised.value)
    assert "host closed: no login as " in str(raised.value)
    assert str(raised.value.hint).startswith("lab matrix --resume")
    assert {cell.status for cell in RunResult.read(tmp_path / "run").cells} == {Status.NOT_RUN}
