"""Machines that die, and lanes that do not come up."""

from typing import NoReturn

from lab.base.errors import LabError
from lab.guest.ready import CloudInitFailed
from lab.lane.running import RunningLane
from lab.plan import Cell
from tests.builders.lab import ONE, VARIANTS, Lab, at, boots, statuses


def dies(running: RunningLane, _cell: Cell) -> NoReturn:
    running.lane.domain.destroy()
    running.lane.check_alive()
    raise AssertionError("it is dead")


def test_a_machine_that_dies_makes_its_cell_an_error_and_a_fresh_lane_runs_the_others(lab: Lab) -> None:
    lab.cell = at("debian-12/stock", dies)
    run = lab.run(retries=0)
    assert statuses(run) == {"debian-12": ["error", "pass"], "debian-13": ["pass", "pass"]}
    assert lab.lanes(of="debian-12") == [["stock"], ["max-userns-zero"]]
    assert len(lab.lanes(of="debian-13")) == 1
    dead = run.cells[0]
    assert dead.reason.startswith("the machine of debian-12 ")
    assert dead.reason.endswith("| Reached target")
    assert dead.evidence == ["cells/debian-12/stock/0.10.8/console.log"]
    assert (lab.folder / dead.evidence[0]).read_text().endswith("Reached target\n")
    assert run.exit_status() == 3


def test_on_a_dead_machine_no_further_cell_is_run_and_what_was_met_first_is_kept(lab: Lab) -> None:
    def run_cell(running: RunningLane, _cell: Cell) -> NoReturn:
        running.lane.domain.destroy()
        raise LabError("SSH broke")

    lab.cell = run_cell
    run = lab.run(guests=ONE, retries=0)
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert all(cell.reason.startswith("SSH broke\nthe machine of debian-13 ") for cell in run.cells)


def test_a_lane_that_does_not_come_up_has_served_nothing_and_is_not_in_the_record(lab: Lab) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        if len(lab.booted) == 1:
            raise LabError("no boot")

    lab.boot = boot
    run = lab.run(guests=ONE, jobs=1)
    assert lab.lanes() == [[], VARIANTS]
    assert [lane.guest for lane in run.run.lanes] == ONE


def test_a_failed_cloud_init_leaves_its_log_as_evidence_of_each_attempt(lab: Lab) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        raise CloudInitFailed("no module", evidence={"cloud-init.log": "the whole log"})

    lab.boot = boot
    run = lab.run(guests=ONE, retries=1)
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert len(lab.booted) == 2
    for cell in run.cells:
        logs = [file for file in cell.evidence if file.endswith("/cloud-init.log")]
        assert len(logs) == 2
        assert {(lab.folder / log).read_text() for log in logs} == {"the whole log"}
