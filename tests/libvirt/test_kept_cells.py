"""Cells that an earlier run decided, in a run that finds out what images its guests have."""

from lab.record import CellResult
from lab.run.reuse import read_earlier
from tests.builders.lab import PASSED, Lab, statuses


def kept_from(cell: CellResult) -> str:
    return cell.history.kept.run if cell.history.kept else ""


def test_what_is_unchanged_is_kept_as_soon_as_its_image_is_known_and_no_guest_boots_for_it(lab: Lab) -> None:
    first = lab.run()
    log = lab.folder / first.cells[2].folder / "suite.log"
    log.parent.mkdir(parents=True)
    log.write_text("the first run's")
    first.cells[2] = first.cells[2].with_parts(evidence=[str(log.relative_to(lab.folder))])
    first.write(lab.folder)
    earlier = read_earlier(lab.folder, lab.paths, None)
    lab.folder = lab.paths.runs / "again"
    lab.booted.clear()
    lab.heard.cells.clear()
    # One guest of the two is defined in another way now.
    again = lab.run(earlier=earlier, sizes={"debian-12": 1500})
    assert statuses(again) == PASSED
    assert [kept_from(cell) for cell in again.cells] == ["", "", "run", "run"]
    assert {guest for guest, _ in lab.booted} == {"debian-12"}
    assert sorted(lane.label for lane in again.run.lanes) == ["debian-12", "run: debian-13"]
    assert sorted(cell.name for cell in lab.heard.cells) == sorted(cell.name for cell in again.cells)
    [evidence] = again.cells[2].evidence
    assert (lab.folder / evidence).read_text() == "the first run's"
    # What it kept can be kept again, and still names the first run.
    third = read_earlier(lab.folder, lab.paths, None)
    lab.folder = lab.paths.runs / "third"
    lab.booted.clear()
    last = lab.run(earlier=third, sizes={"debian-12": 1500})
    assert [kept_from(cell) for cell in last.cells] == ["again", "again", "run", "run"]
    assert lab.booted == []


def test_a_cell_whose_evidence_cannot_be_copied_is_run(lab: Lab) -> None:
    first = lab.run()
    first.cells[2] = first.cells[2].with_parts(evidence=["cells/../../elsewhere"])
    first.write(lab.folder)
    earlier = read_earlier(lab.folder, lab.paths, None)
    lab.folder = lab.paths.runs / "again"
    again = lab.run(earlier=earlier)
    assert statuses(again) == PASSED
    assert [kept_from(cell) for cell in again.cells] == ["run", "run", "", "run"]
    assert lab.heard.noted("debian-13 stock: run again: ")
    assert lab.heard.noted("evidence outside of the cell's folder")
