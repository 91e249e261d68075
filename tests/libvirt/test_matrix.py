"""Whole runs against libvirt's own test driver, with stand-ins for all that needs a real guest."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import libvirt
import pytest

from lab import catalog, matrix
from lab.builds import Build
from lab.catalog import Guest
from lab.errors import LabError, NotApplicable
from lab.guest.ready import CloudInitFailed
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import acceleration
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.paths import Paths
from lab.plan import Cell, choose
from lab.results import CellResult, RunResult, Status
from lab.serve import Service
from tests.libvirt.conftest import URI

RELEASE = Build("0.10.8", "0.10.8")
GUESTS, VARIANTS = ["debian-12", "debian-13"], ["stock", "max-userns-zero"]

RunCell = Callable[[Service, Cell], CellResult]


class Heard:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.cells: list[CellResult] = []
        self.notes: list[str] = []

    def lane(self, guest: str, text: str) -> None:
        pass

    def cell(self, result: CellResult) -> None:
        self.cells.append(result)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Lab:
    """Two guests in two variants, each cell of which passes at once unless a test puts something else."""

    def __init__(self, opened: libvirt.virConnect, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.paths, self.put = opened, paths, monkeypatch.setattr
        self.folder = paths.runs / "run"
        self.heard = Heard()

    def run(self, *, cold: bool = False, uri: str = URI, jobs: int = 2) -> RunResult:
        known = catalog.load()
        options = matrix.Options(command="lab matrix", jobs=jobs, cold=cold, rootfs=Path("/layout"))
        cells = choose(known, guests=GUESTS, variants=VARIANTS).cells(RELEASE)
        return matrix.MatrixRun(cells, known.suite, self.paths, self.folder, uri, options, self.heard).run()

    @property
    def left(self) -> list[str]:
        """Machines, lanes and port locks that are still there."""
        machines = [found.name() for found in self.opened.listAllDomains() if found.name() != "test"]
        return machines + [path.name for path in (*self.paths.lanes.glob("lab-*"), *self.paths.ports.glob("*"))]


@pytest.fixture
def lab(opened: libvirt.virConnect, paths: Paths, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(store, "ensure", lambda _paths, _guest, _say: image)
    monkeypatch.setattr(acceleration, "decide", lambda *_: Acceleration(False, "a test"))
    monkeypatch.setattr(Service, "bring_up", start)
    monkeypatch.setattr(Service, "take_checkpoint", lambda _service: None)
    monkeypatch.setattr(Service, "not_applicable", lambda _service, _cell: None)
    monkeypatch.setattr(Service, "run", passes)
    return Lab(opened, paths, monkeypatch)


def start(service: Service, _build: Build) -> list[Path]:
    service.lane.start()
    service.lane.console.write_text("Linux version 6.12\nReached target\n")
    return []


def passes(_service: Service, cell: Cell) -> CellResult:
    return cell.result(Status.PASS)


def only(guest: str, otherwise: RunCell, then: RunCell) -> RunCell:
    """Something else for the second cell of one guest."""

    def run(service: Service, cell: Cell) -> CellResult:
        there = cell.guest.name == guest and cell.variant.name == VARIANTS[1]
        return (then if there else otherwise)(service, cell)

    return run


def fails(error: BaseException) -> RunCell:
    def run(_service: Service, _cell: Cell) -> NoReturn:
        raise error

    return run


def dies(service: Service, _cell: Cell) -> NoReturn:
    service.lane.domain.destroy()
    service.lane.check_alive()
    raise AssertionError("it is dead")


def statuses(run: RunResult) -> dict[str, list[str]]:
    return {guest: [str(cell.status) for cell in run.cells if cell.guest == guest] for guest in GUESTS}


def test_every_cell_is_run_shown_and_written_and_nothing_is_left(lab: Lab) -> None:
    run = lab.run()
    assert statuses(run) == {guest: ["pass", "pass"] for guest in GUESTS}
    assert (run.exit_status(), run.run.interrupted, len(run.run.lanes)) == (0, False, 2)
    assert len(lab.heard.cells) == 4
    assert RunResult.read(lab.folder) == run
    assert lab.left == []


def test_every_cell_says_how_to_run_it_again(lab: Lab) -> None:
    rerun = lab.run(cold=True).cells[3].rerun
    assert rerun == "lab matrix -g debian-13 -v max-userns-zero --build 0.10.8 --cold --rootfs /layout"


def test_emulation_is_said_once(lab: Lab) -> None:
    lab.run()
    assert len(lab.heard.notes) == 1
    assert "software emulation" in lab.heard.notes[0]


@pytest.mark.parametrize(("cold", "boots"), [(False, 2), (True, 4)])
def test_a_guest_boots_once_or_for_each_cell_when_cold(lab: Lab, cold: bool, boots: int) -> None:
    booted = []

    def count(service: Service, build: Build) -> list[Path]:
        booted.append(service.lane.name)
        return start(service, build)

    lab.put(Service, "bring_up", count)
    assert statuses(lab.run(cold=cold)) == {guest: ["pass", "pass"] for guest in GUESTS}
    assert len(set(booted)) == boots


def test_a_machine_that_dies_makes_its_other_cells_errors_and_the_other_lanes_go_on(lab: Lab) -> None:
    lab.put(Service, "run", only("debian-12", passes, dies))
    run = lab.run()
    assert statuses(run) == {"debian-12": ["pass", "error"], "debian-13": ["pass", "pass"]}
    assert run.exit_status() == 3
    dead = run.cells[1]
    assert dead.reason.startswith("the machine of debian-12 ")
    assert dead.reason.endswith("| Reached target")
    assert dead.evidence == ["cells/debian-12/max-userns-zero/0.10.8/console.log"]
    assert (lab.folder / dead.evidence[0]).read_text().endswith("Reached target\n")
    assert lab.left == []


@pytest.mark.parametrize("seen_by", ["libvirt", "SSH"])
def test_on_a_dead_machine_no_further_cell_is_run(lab: Lab, seen_by: str) -> None:
    asked: list[Cell] = []

    def run_cell(service: Service, cell: Cell) -> NoReturn:
        asked.append(cell)
        service.lane.domain.destroy()
        if seen_by == "libvirt":
            service.lane.check_alive()
        raise LabError("SSH broke")

    lab.put(Service, "run", run_cell)
    run = lab.run()
    assert [cell.variant.name for cell in asked] == ["stock", "stock"]
    assert statuses(run) == {guest: ["error", "error"] for guest in GUESTS}
    for cell in run.cells:
        assert f"the machine of {cell.guest} " in cell.reason
        # What was met first is kept, where that was not the machine itself.
        assert cell.reason.startswith("SSH broke\n") is (seen_by == "SSH")


def test_a_fault_of_one_cell_is_its_own(lab: Lab) -> None:
    def run_cell(service: Service, cell: Cell) -> CellResult:
        return (fails(LabError("not in effect")) if cell.variant.name == "stock" else passes)(service, cell)

    lab.put(Service, "run", run_cell)
    run = lab.run()
    assert statuses(run) == {guest: ["error", "pass"] for guest in GUESTS}
    assert run.cells[0].reason == "not in effect"


@pytest.mark.parametrize(
    "error",
    [LabError("no disk"), libvirt.libvirtError("no daemon"), OSError(28, "No space left on device")],
    ids=lambda error: type(error).__name__,
)
def test_a_guest_without_an_image_makes_its_cells_errors_and_the_others_go_on(
    lab: Lab, image: BaseImage, error: Exception
) -> None:
    def ensure(_paths: Paths, guest: Guest, _say: object) -> BaseImage:
        if guest.name == "debian-12":
            raise error
        return image

    lab.put(store, "ensure", ensure)
    run = lab.run()
    assert statuses(run) == {"debian-12": ["error", "error"], "debian-13": ["pass", "pass"]}
    assert {cell.reason for cell in run.cells[:2]} == {str(error)}
    assert run.exit_status() == 3


def test_a_failed_cloud_init_leaves_its_log_as_evidence(lab: Lab) -> None:
    def bring_up(service: Service, build: Build) -> list[Path]:
        start(service, build)
        raise CloudInitFailed("cloud-init in the guest failed: no module", "the whole log")

    lab.put(Service, "bring_up", bring_up)
    run = lab.run()
    assert statuses(run) == {guest: ["error", "error"] for guest in GUESTS}
    logs = [file for file in run.cells[0].evidence if file.endswith("/cloud-init.log")]
    assert (lab.folder / logs[0]).read_text() == "the whole log"


def test_a_build_that_has_nothing_for_a_guest_is_not_applicable_there(lab: Lab) -> None:
    def bring_up(service: Service, build: Build) -> list[Path]:
        if service.lane.guest.name == "debian-12":
            raise NotApplicable("boxlite has no wheels for Python 3.11")
        return start(service, build)

    lab.put(Service, "bring_up", bring_up)
    run = lab.run()
    assert statuses(run) == {"debian-12": ["n/a", "n/a"], "debian-13": ["pass", "pass"]}
    assert run.cells[0].reason == "boxlite has no wheels for Python 3.11"
    assert run.exit_status() == 0


def test_an_interrupt_keeps_what_there_is_and_the_rest_is_not_run(lab: Lab) -> None:
    lab.put(Service, "run", only("debian-12", passes, fails(KeyboardInterrupt())))
    run = lab.run(jobs=1)
    assert statuses(run) == {"debian-12": ["pass", "not-run"], "debian-13": ["not-run", "not-run"]}
    assert {cell.reason for cell in run.cells[1:]} == {"interrupted"}
    assert run.run.interrupted
    assert run.exit_status() == 3
    assert RunResult.read(lab.folder) == run
    assert lab.left == []


def test_without_libvirt_nothing_is_begun(lab: Lab) -> None:
    with pytest.raises(NoLibvirt):
        lab.run(uri="test+bogus:///x")
    assert not lab.folder.exists()
