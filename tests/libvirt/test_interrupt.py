"""Ctrl-C keeps what there is; the rest is not run, and nothing is left behind."""

import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from lab.base.activity import Task
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.lane.prepare_image import Preparation
from lab.lane.running import RunningLane
from lab.machine.lane import open_lane
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
        return until_given_up(running.lane.check_wanted)

    lab.cell = run_cell
    run = lab.run(jobs=jobs, retries=retries)
    assert statuses(run) == {"debian-12": ["pass", "not-run"], "debian-13": ["not-run", "not-run"]}
    assert {cell.reason for cell in run.cells[1:]} == {"interrupted"}
    assert [cell.history.retried for cell in run.cells] == [[]] * 4
    assert run.run.interrupted
    assert run.exit_status() == 3
    assert (len(lab.heard.cells), len(lab.heard.notes)) == (1, 1)


@pytest.mark.parametrize("step", ["image", "preparation", "boot"])
def test_an_interrupt_before_its_cells_are_run_is_no_fault_of_theirs(
    lab: Lab, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def build(_paths: Paths, _guest: Guest, task: Task) -> NoReturn:
        interrupt()
        until_given_up(task.check)

    def prepare(work: Preparation, guest: Guest, image: BaseImage) -> None:
        how = work.acceleration
        with open_lane(work.connection, work.paths, guest=guest, image=image, acceleration=how) as lane:
            work.on_lane(lane)
            lane.start()
            interrupt()
            until_given_up(lane.check_wanted)

    def boot(running: RunningLane) -> NoReturn:
        boots(running)
        interrupt()
        until_given_up(running.lane.check_wanted)

    if step == "image":
        monkeypatch.setattr(store, "ensure_image", build)
    elif step == "preparation":
        monkeypatch.setattr(prepare_image, "ensure_prepared_image", prepare)
    else:
        lab.boot = boot
    run = lab.run(jobs=1, retries=0)
    assert {(cell.status, cell.reason) for cell in run.cells} == {("not-run", "interrupted")}
    assert run.run.interrupted
    assert len(lab.booted) == (step == "boot")
