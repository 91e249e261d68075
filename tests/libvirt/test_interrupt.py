"""Ctrl-C keeps what there is; the rest is not run, and nothing is left behind."""

import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from lab.base.paths import Paths
from lab.base.wait import Deadline, wait_for
from lab.catalog import Guest
from lab.images import store
from lab.lane.running import RunningLane
from lab.plan import Cell
from lab.record import CellResult
from tests.builders.lab import Lab, boots, passes, statuses, until_given_up


@pytest.mark.parametrize(("jobs", "retries"), [(1, 0), (2, 3)])
def test_an_interrupt_keeps_results(lab: Lab, interrupt: Callable[[], None], jobs: int, retries: int) -> None:
    other_runs = threading.Event()

    def run_cell(running: RunningLane, cell: Cell) -> CellResult:
        if cell.name == "debian-12/stock/0.10.8":
            return passes(running, cell)
        if cell.guest.name == "debian-13":
            other_runs.set()
        else:
            assert jobs == 1 or other_runs.wait(20)
            interrupt()
        return until_given_up(running)

    lab.cell = run_cell
    run = lab.run(jobs=jobs, retries=retries)
    assert statuses(run) == {"debian-12": ["pass", "not-run"], "debian-13": ["not-run", "not-run"]}
    assert {cell.reason for cell in run.cells[1:]} == {"interrupted"}
    assert [cell.retried for cell in run.cells] == [[]] * 4
    assert run.run.interrupted
    assert run.exit_status() == 3
    assert (len(lab.heard.cells), len(lab.heard.notes)) == (1, 1)


def test_an_interrupt_of_a_boot_is_no_fault_of_its_cells(lab: Lab, interrupt: Callable[[], None]) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        interrupt()
        until_given_up(running)

    lab.boot = boot
    run = lab.run(jobs=1, retries=0)
    assert {(cell.status, cell.reason) for cell in run.cells} == {("not-run", "interrupted")}
    assert len(lab.booted) == 1


def test_an_interrupt_while_an_image_is_built_is_no_fault_of_its_cells(
    lab: Lab, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(_paths: Paths, _guest: Guest, say: Callable[[str], None]) -> NoReturn:
        interrupt()
        wait_for(lambda: None, Deadline(20, "the interrupt"), alive=lambda: say("unpacking"), interval=0.01)
        raise AssertionError("it went on")

    monkeypatch.setattr(store, "ensure", ensure)
    run = lab.run(jobs=1)
    assert {(cell.status, cell.reason) for cell in run.cells} == {("not-run", "interrupted")}
    assert lab.heard.cells == []
