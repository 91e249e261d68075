from pathlib import Path
from typing import Any

import pytest

from lab.fleet.archive import DamagedResult
from lab.fleet.merging import Merger, OtherBuild
from lab.fleet.names import LaneNames
from lab.plan import Cell
from lab.record import CellResult, LaneRecord, RunResult, Status
from lab.run.journal import UNDECIDED, Journal
from lab.run.labels import Labels
from tests.unit.examples import host
from tests.unit.run_examples import SMALL, begin, finish
from tests.unit.told import Told


class Merging:
    """A run of four cells, and what hosts send of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        planned = begin(folder / "run", SMALL)
        planned.folder.mkdir()
        self.journal = Journal(planned.folder, planned.cells, planned.info, {})
        self.labels = Labels()
        self.told = Told()
        self.merger = Merger(self.journal, self.told)

    def part(self, host: str, cells: list[Cell], **update: Any) -> tuple[Path, RunResult]:
        """What a host's child left: every cell passed."""
        folder = self.folder / host
        result = finish(folder, begin(folder, cells))
        lane = LaneRecord(
            guest=cells[0].guest.name, label=cells[0].guest.name, image=f"of {host}", fork="memory", seconds={}
        )
        result.run.lanes.append(lane)
        result.cells = [each.model_copy(update={"lane": lane.label}) for each in result.cells]
        return folder, result

    def take(self, host: str, cells: list[Cell], sent: tuple[Path, RunResult], *faults: str) -> None:
        folder, result = sent
        self.merger.take(cells, result, folder, LaneNames(host, self.labels), faults)

    def record(self) -> RunResult:
        return self.journal.result()


@pytest.fixture
def merging(tmp_path: Path) -> Merging:
    return Merging(tmp_path)


def test_two_hosts_results_become_one_record(merging: Merging) -> None:
    first, second = SMALL[:2], SMALL[2:]
    merging.take("one", first, merging.part("one", first))
    merging.take("two", second, merging.part("two", second))
    record = merging.record()
    assert [cell.status for cell in record.cells] == [Status.PASS] * 4
    assert [cell.lane for cell in record.cells] == ["one: debian-12"] * 2 + ["two: debian-13"] * 2
    assert [(lane.label, lane.image) for lane in record.run.lanes] == [
        ("one: debian-12", "of one"),
        ("two: debian-13", "of two"),
    ]
    for cell in record.cells:
        [log] = cell.evidence
        assert (
            (merging.journal.folder / log)
            .read_text()
            .startswith("one " if cell.guest == "debian-12" else "two ")
        )


def test_two_parts_of_one_host_have_lanes_of_their_own(merging: Merging) -> None:
    for number, cell in enumerate(SMALL[:2]):
        merging.take("one", [cell], merging.part(f"one-{number}", [cell]))
    assert [cell.lane for cell in merging.record().cells[:2]] == ["one: debian-12", "one: debian-12 #2"]


def test_a_guest_that_is_another_image_on_another_host_is_told_once(merging: Merging) -> None:
    for name, cell in (("one", SMALL[0]), ("two", SMALL[1]), ("two", SMALL[2]), ("one", SMALL[3])):
        merging.take(name, [cell], merging.part(name + cell.variant.name + cell.guest.name, [cell]))
    assert [note.partition(":")[0] for note in merging.told.notes] == [
        "debian-12 is not the same image everywhere",
        "debian-13 is not the same image everywhere",
    ]
    assert "one: debian-12 ran from of one" in merging.told.notes[0]


def test_a_lane_without_a_host_has_that_of_its_part(merging: Merging) -> None:
    folder, result = merging.part("one", SMALL[:1])
    result.run.host = host()
    merging.take("one", SMALL[:1], (folder, result))
    [lane] = merging.record().run.lanes
    assert lane.host == host()


@pytest.mark.parametrize("reason", UNDECIDED)
def test_what_a_host_did_not_decide_stays_open(merging: Merging, reason: str) -> None:
    folder, result = merging.part("one", SMALL[:2])
    result.cells[1] = SMALL[1].result(Status.NOT_RUN, reason=reason)
    merging.take("one", SMALL[:2], (folder, result))
    assert merging.journal.is_decided(SMALL[0])
    assert not merging.journal.is_decided(SMALL[1])


def test_what_a_host_could_not_run_is_decided(merging: Merging) -> None:
    folder, result = merging.part("one", SMALL[:1])
    result.cells[0] = SMALL[0].result(Status.NOT_RUN, reason="image not available: none")
    merging.take("one", SMALL[:1], (folder, result))
    assert merging.journal.is_decided(SMALL[0])


def test_what_happened_before_is_with_each_cell(merging: Merging) -> None:
    merging.take("two", SMALL[:1], merging.part("two", SMALL[:1]), "one was lost")
    assert merging.record().cells[0].retried == ["one was lost"]


def test_evidence_of_an_earlier_try_makes_room(merging: Merging) -> None:
    old = merging.journal.folder / SMALL[0].folder / "old.log"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier session")
    merging.take("one", SMALL[:1], merging.part("one", SMALL[:1]))
    assert not old.exists()
    assert len(merging.record().cells[0].evidence) == 1


def test_a_cell_that_nobody_asked_for_is_damage(merging: Merging) -> None:
    with pytest.raises(DamagedResult, match="not one of the part"):
        merging.take("one", SMALL[:1], merging.part("one", SMALL[:2]))
    assert not merging.journal.is_decided(SMALL[0])


def test_other_files_of_a_build_are_no_result_of_this_run(merging: Merging) -> None:
    first, second = merging.part("one", SMALL[:1]), merging.part("two", SMALL[1:2])
    first[1].run.builds[0].files["boxlite.whl"] = "a" * 64
    second[1].run.builds[0].files["boxlite.whl"] = "b" * 64
    merging.take("one", SMALL[:1], first)
    with pytest.raises(OtherBuild, match=r"two deployed other files of boxlite 0.10.8 .*: boxlite.whl"):
        merging.take("two", SMALL[1:2], second)
    assert not merging.journal.is_decided(SMALL[1])
    assert merging.record().run.builds[0].files == {"boxlite.whl": "a" * 64}


def test_a_build_that_is_not_of_the_run_is_damage(merging: Merging) -> None:
    folder, result = merging.part("one", SMALL[:1])
    result.run.builds[0] = result.run.builds[0].model_copy(update={"name": "other"})
    with pytest.raises(DamagedResult, match="a build that is not one of the run: 'other'"):
        merging.take("one", SMALL[:1], (folder, result))


def test_cells_that_cost_too_many_hosts_are_errors(merging: Merging) -> None:
    merging.merger.give_up(SMALL[:1], ["one was lost", "two was lost"])
    cell: CellResult = merging.record().cells[0]
    assert (cell.status, cell.retried) == (Status.ERROR, ["one was lost"])
    assert cell.reason == "lost with its host 2 times: one was lost; two was lost"


def test_the_first_result_of_a_cell_stands(merging: Merging) -> None:
    merging.take("one", SMALL[:1], merging.part("one", SMALL[:1]))
    merging.take("two", SMALL[:2], merging.part("two", SMALL[:2]))
    record = merging.record()
    assert [cell.lane for cell in record.cells[:2]] == ["one: debian-12", "two: debian-12"]
    assert (merging.journal.folder / record.cells[0].evidence[0]).read_text().startswith("one ")
