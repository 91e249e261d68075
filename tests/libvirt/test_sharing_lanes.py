"""How many lanes a guest gets, and which of them runs which cell."""

import time
from collections import Counter

import pytest

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images import store
from lab.images.store import BaseImage
from lab.lane.running import RunningLane
from lab.plan import Cell
from lab.record import CellResult
from tests.builders.lab import OLDER, ONE, PASSED, RELEASE, VARIANTS, Lab, Seconds, boots, passes, statuses

LANE_MIB = 3072


@pytest.mark.parametrize("repeat", [1, 2])
def test_when_cold_every_run_of_a_cell_has_a_lane_of_its_own(lab: Lab, repeat: int) -> None:
    run = lab.run(guests=ONE, cold=True, repeat=repeat)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert [len(cell.suite.repeats) for cell in run.cells] == [repeat if repeat > 1 else 0] * 2
    assert [len(lane) for lane in lab.lanes() if lane] == [1] * (2 * repeat)
    assert Counter(cell.variant.name for _, cell in lab.served) == dict.fromkeys(VARIANTS, repeat)
    assert all(cell.history.retried == [] for cell in run.cells)


def test_a_further_lane_that_does_not_come_up_costs_nobody_a_retry(lab: Lab) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        if len(lab.booted) > 1:
            raise LabError("not enough of something for two")

    def waits_for_the_second_lane(running: RunningLane, cell: Cell) -> CellResult:
        lab.heard.wait(lambda: ("debian-13 #2", "") in lab.heard.lanes)
        return passes(running, cell)

    lab.boot = boot
    lab.cell = waits_for_the_second_lane
    run = lab.run(guests=ONE, builds=[OLDER, RELEASE], retries=0, estimates=Seconds(10.0, {"debian-13": 100.0}))
    assert statuses(run) == {"debian-13": ["pass"] * 4}
    assert [cell.history.retried for cell in run.cells] == [[]] * 4
    assert [len(lane) for lane in lab.lanes()] == [4, 0]


def test_lanes_wait_for_the_memory_of_others(lab: Lab) -> None:
    def alone(running: RunningLane) -> None:
        assert [folder.name for folder in lab.paths.lanes.glob("lab-*")] == [running.lane.name]
        boots(running)

    lab.boot = alone
    run = lab.run(jobs=4, memory=2 * LANE_MIB - 1)
    assert statuses(run) == PASSED
    assert len(lab.booted) == 2


def test_an_image_waits_for_a_processor(lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    building: list[str] = []
    most: list[int] = []

    def build(_paths: Paths, guest: Guest, _say: object) -> BaseImage:
        building.append(guest.name)
        time.sleep(0.05)
        most.append(len(building))
        building.remove(guest.name)
        return image

    monkeypatch.setattr(store, "ensure_image", build)
    assert statuses(lab.run(processors=1)) == PASSED
    assert most == [1, 1]
