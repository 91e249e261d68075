"""A lab whose runs go to libvirt's own test driver, with stand-ins for all that needs a real guest."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import libvirt
import pytest

from lab import catalog
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, wait_for
from lab.builds import Build, SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import cell as lane_cell
from lab.lane.running import RunningLane
from lab.machine import acceleration, qemu
from lab.machine.acceleration import Acceleration
from lab.machine.budget import HostLimits, Memory
from lab.plan import BRING_UP_SECONDS, Cell, choose_cells
from lab.probes import Facts
from lab.record import CellResult, RunOptions, RunResult, Status
from lab.record.folders import LOCK
from lab.run import decisions, scheduler, start
from lab.run.backlog import Estimates
from lab.run.reuse import EarlierRuns
from lab.run.scheduler import Scheduler
from tests.builders.cells import changed
from tests.builders.facts import facts
from tests.builders.runs import Told

# A daemon inside this process, whose machines run nothing. All open connections see the same machines, which
# disappear when the last connection is closed.
URI = "test:///default"
RELEASE, OLDER = Wheel("0.10.8", "0.10.8"), Wheel("0.9.0", "0.9.0")
GUESTS, VARIANTS = ["debian-12", "debian-13"], ["stock", "max-userns-zero"]
ONE = GUESTS[1:]

RunCell = Callable[[RunningLane, Cell], CellResult]
DISK_FULL = OSError(28, "No space left on device")


class Seconds(Estimates):
    """A lane comes up in so many seconds, and a cell of a guest takes so many, as measured on this host."""

    are_measured = True

    def __init__(self, bring_up: float, cells: Mapping[str, float]) -> None:
        super().__init__(RunOptions())
        self._bring_up, self._seconds = bring_up, cells

    def bring_up(self, _arch: str, *, again: bool = False) -> float:
        return self._bring_up

    def cell(self, cell: Cell) -> float:
        return self._seconds[cell.guest.name]


# All cells are alike, so that one lane takes them in the order of the plan.
EVEN = Seconds(BRING_UP_SECONDS, defaultdict(lambda: 30.0))


class Lab:
    """Two guests in two variants, each cell of which passes at once unless a test puts something else.

    The record on disk is that of each run, and at the end of each test nothing is left (see the fixture `lab`).
    """

    def __init__(self, opened: libvirt.virConnect, paths: Paths) -> None:
        self.opened, self.paths = opened, paths
        self.folder = paths.runs / "run"
        self.heard = Told()
        self.boot: Callable[[RunningLane], None] = boots
        self.facts: Callable[[RunningLane], Facts] = lambda _running: facts()
        self.deploy: Callable[[RunningLane, Build], dict[str, str] | None] = lambda _running, _build: {}
        self.cell: RunCell = passes
        # Lanes by the names of their machines: those that came up or tried to, and who served what.
        self.booted: list[tuple[str, str]] = []
        self.served: list[tuple[str, Cell]] = []
        # By what the time limits of each suite were multiplied.
        self.stretched: list[float] = []
        # Whether each suite was run while no other lane was at work.
        self.alone: list[bool] = []
        # What the probes had said of each before its build was deployed.
        self.known: list[object] = []

    def put_stand_ins(self, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
        """From here on runs get lanes and cells of this lab."""

        def start(running: RunningLane) -> None:
            self.booted.append((running.lane.guest.name, running.lane.name))
            self.boot(running)

        def run(
            running: RunningLane, cell: Cell, _folder: Path, options: SuiteOptions, _show: object, known: object
        ) -> CellResult:
            self.known.append(known)
            self.stretched.append(options.stretch)
            self.alone.append(running.alone)
            self.served.append((running.lane.name, cell))
            return self.cell(running, cell)

        # The driver's machines are no processes.
        monkeypatch.setattr(qemu, "measure_processor_seconds", lambda _lane: 1.5)
        monkeypatch.setattr(store, "ensure_image", lambda _paths, _guest, _say: image)
        monkeypatch.setattr(acceleration, "decide_acceleration", lambda *_, **__: Acceleration(False, "a test"))
        monkeypatch.setattr(scheduler, "Memory", lambda limit: Memory(limit, available=lambda: 64_000))
        monkeypatch.setattr(RunningLane, "start", start)
        monkeypatch.setattr(RunningLane, "has_no_build", False)
        monkeypatch.setattr(RunningLane, "deploy", lambda running, build: self.deploy(running, build))
        monkeypatch.setattr(RunningLane, "facts", property(lambda running: self.facts(running)))
        monkeypatch.setattr(lane_cell, "find_obstacle", lambda _running, _cell: None)
        monkeypatch.setattr(lane_cell, "run_cell", run)

    def run(
        self,
        *,
        guests: Sequence[str] = GUESTS,
        variants: Sequence[str] = VARIANTS,
        builds: Sequence[Build] = (RELEASE,),
        jobs: int = 2,
        processors: int = 2,
        memory: int | None = None,
        uri: str = URI,
        estimates: Estimates | None = None,
        kept: Callable[[Cell], CellResult | None] = lambda cell: None,
        sizes: Mapping[str, int] | None = None,
        offline: bool = False,
        earlier: EarlierRuns | None = None,
        **options: Any,
    ) -> RunResult:
        definitions = catalog.load_catalog()
        choice = choose_cells(definitions, guests=guests, variants=variants)
        for number, guest in enumerate(choice.guests):
            memory_mib = (sizes or {}).get(guest.name, guest.memory_mib)
            choice.guests[number] = guest.model_copy(update={"memory_mib": memory_mib})
        begun = start.begin_run(
            self.folder,
            choice.cells(builds),
            command="lab matrix",
            options=RunOptions(rootfs="/layout", **options),
        )
        results = {cell.folder: result for cell in begun.cells if (result := kept(cell))}
        begun = replace(begun, earlier_results=results)
        limits = HostLimits(jobs=jobs, memory_mib=memory, processors=processors)
        with patch.object(decisions, "Estimates", lambda _options: estimates or EVEN):
            run = Scheduler(begun, self.paths, uri, limits, self.heard, offline=offline, earlier=earlier).run()
        assert RunResult.read(self.folder) == run
        return run

    @property
    def left(self) -> list[str]:
        """Machines, lanes and locks of the run that are still there."""
        machines = [domain.name() for domain in self.opened.listAllDomains() if domain.name() != "test"]
        files = (*self.paths.lanes.glob("lab-*"), *self.folder.glob(LOCK))
        return machines + [path.name for path in files]

    def lanes(self, *, of: str = "debian-13") -> list[list[str]]:
        """What each lane of a guest was asked to run, in the order in which they came."""
        lanes: dict[str, list[str]] = {name: [] for guest, name in self.booted if guest == of}
        for name, cell in self.served:
            if name in lanes:
                lanes[name].append(cell.variant.name)
        return list(lanes.values())


def boots(running: RunningLane) -> None:
    running.lane.start()
    running.lane.console.write_text("Linux version 6.12\nReached target\n")


def passes(_running: RunningLane, cell: Cell) -> CellResult:
    return cell.result(Status.PASS)


def fails(error: BaseException) -> RunCell:
    def run(_running: RunningLane, _cell: Cell) -> NoReturn:
        raise error

    return run


def until_given_up(alive: Callable[[], None]) -> NoReturn:
    """Do nothing until `alive` raises the interrupt."""
    with suppress(DeadlineExpired):
        wait_for(lambda: None, Deadline(20, "the interrupt"), alive=alive, interval=0.01)
    raise AssertionError("it was not given up")


def at(where: str, *then: RunCell) -> RunCell:
    """Something else for one cell, "guest/variant", a step for each time that it is asked; then it passes."""
    steps = iter(then)

    def run(running: RunningLane, cell: Cell) -> CellResult:
        if where == f"{cell.guest.name}/{cell.variant.name}":
            return next(steps, passes)(running, cell)
        return passes(running, cell)

    return run


def statuses(run: RunResult) -> dict[str, list[str]]:
    by_guest: dict[str, list[str]] = {}
    for cell in run.cells:
        by_guest.setdefault(cell.guest, []).append(str(cell.status))
    return by_guest


PASSED = {guest: ["pass", "pass"] for guest in GUESTS}


def blocked(_running: RunningLane, cell: Cell) -> CellResult:
    return changed(cell.result(Status.XFAIL), cause="userns-limit")
