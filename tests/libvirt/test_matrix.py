"""Whole runs against libvirt's own test driver, with stand-ins for all that needs a real guest."""

import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import libvirt
import pytest

from lab import catalog
from lab.base.errors import ImageNotAvailable, LabError, NotApplicable
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, wait_for
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Firmware, Guest
from lab.guest.ready import CloudInitFailed, NotAsDefined
from lab.guest.variant import NotInEffect
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image as prepare
from lab.lane.cell import CellRunner
from lab.lane.prepare_image import NotPrepared
from lab.lane.running import RunningLane
from lab.machine import acceleration, lane, leftovers
from lab.machine import connection as libvirt_connection
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Limits, Memory
from lab.machine.connection import NoLibvirt
from lab.machine.lane import CoreLimited, Lane, LaneDied
from lab.machine.leftovers import LeftBehind
from lab.plan import Cell, choose
from lab.record import (
    CellResult,
    Experiment,
    ExperimentPolicy,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
    TestResult,
)
from lab.run import decisions, scheduler, start, worker
from lab.run.estimates import Estimates
from lab.run.journal import LOCK, ResultsNotWritten
from lab.run.scheduler import Scheduler
from lab.trials import experiment
from lab.trials.experiment import Steps
from lab.trials.policy import Policy
from lab.trials.remedies import Trial, Trials
from tests.libvirt.conftest import URI
from tests.unit.examples import facts

RELEASE, OLDER = Wheel("0.10.8", "0.10.8"), Wheel("0.9.0", "0.9.0")
GUESTS, VARIANTS = ["debian-12", "debian-13"], ["stock", "max-userns-zero"]
ONE = GUESTS[1:]
LANE_MIB = 3072

RunCell = Callable[[RunningLane, Cell], CellResult]
DISK_FULL = OSError(28, "No space left on device")


class Seconds(Estimates):
    """A lane comes up in so many seconds, and a cell of a guest takes so many, as measured on this host."""

    are_measured = True

    def __init__(self, bring_up: float, cells: Mapping[str, float]) -> None:
        super().__init__()
        self._bring_up, self._seconds = bring_up, cells

    def bring_up(self, guest: str) -> float:
        return self._bring_up

    def cell(self, cell: Cell) -> float:
        return self._seconds[cell.guest.name]


class Heard:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.cells: list[CellResult] = []
        self.notes: list[str] = []
        self.lefts: list[float | None] = []
        self.ended: dict[str, threading.Event] = defaultdict(threading.Event)

    def lane(self, lane: str, text: str) -> None:
        if not text:
            self.ended[lane].set()

    def cell(self, result: CellResult) -> None:
        self.cells.append(result)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def time_left(self, seconds: float | None) -> None:
        self.lefts.append(seconds)


class Lab:
    """Two guests in two variants, each cell of which passes at once unless a test puts something else."""

    def __init__(self, opened: libvirt.virConnect, paths: Paths) -> None:
        self.opened, self.paths = opened, paths
        self.folder = paths.runs / "run"
        self.heard = Heard()
        self.boot: Callable[[RunningLane], None] = boots
        self.deploy: Callable[[RunningLane, Build], dict[str, str] | None] = lambda _running, _build: {}
        self.cell: RunCell = passes
        # Lanes by the names of their machines: those that came up or tried to, and who served what.
        self.booted: list[tuple[str, str]] = []
        self.served: list[tuple[str, Cell]] = []

    def run(
        self,
        *,
        guests: Sequence[str] = GUESTS,
        variants: Sequence[str] = VARIANTS,
        builds: Sequence[Build] = (RELEASE,),
        jobs: int = 2,
        memory: int | None = None,
        uri: str = URI,
        estimates: Estimates | None = None,
        kept: Callable[[Cell], CellResult | None] = lambda cell: None,
        sizes: Mapping[str, int] | None = None,
        **options: Any,
    ) -> RunResult:
        known = catalog.load()
        choice = choose(known, guests=guests, variants=variants)
        for number, guest in enumerate(choice.guests):
            wanted = (sizes or {}).get(guest.name, guest.memory_mib)
            choice.guests[number] = guest.model_copy(update={"memory_mib": wanted})
        begun = start.begin(
            self.folder,
            choice.cells(builds),
            command="lab matrix",
            options=RunOptions(rootfs="/layout", **options),
            shard=None,
        )
        return Scheduler(
            begun.cells,
            self.paths,
            self.folder,
            uri,
            begun.info,
            Limits(jobs=jobs, memory_mib=memory, processors=2),
            self.heard,
            estimates=estimates or Estimates(),
            kept={cell.folder: result for cell in begun.cells if (result := kept(cell))},
        ).run()

    @property
    def left(self) -> list[str]:
        """Machines, lanes, port locks and locks of the run that are still there."""
        machines = [found.name() for found in self.opened.listAllDomains() if found.name() != "test"]
        files = (*self.paths.lanes.glob("lab-*"), *self.paths.ports.glob("*"), *self.folder.glob(LOCK))
        return machines + [path.name for path in files]

    def lanes(self, *, of: str = "debian-13") -> list[list[str]]:
        """What each lane of a guest was asked to run, in the order in which they came."""
        found: dict[str, list[str]] = {name: [] for guest, name in self.booted if guest == of}
        for name, cell in self.served:
            if name in found:
                found[name].append(cell.variant.name)
        return list(found.values())


@pytest.fixture
def lab(opened: libvirt.virConnect, paths: Paths, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(opened, paths)

    def start(running: RunningLane) -> None:
        made.booted.append((running.lane.guest.name, running.lane.name))
        made.boot(running)

    def run(runner: CellRunner, cell: Cell, _folder: Path) -> CellResult:
        runner.served += 1
        made.served.append((runner.running.lane.name, cell))
        return made.cell(runner.running, cell)

    monkeypatch.setattr(store, "ensure", lambda _paths, _guest, _say: image)
    monkeypatch.setattr(acceleration, "decide", lambda *_: Acceleration(False, "a test"))
    monkeypatch.setattr(scheduler, "Memory", lambda limit: Memory(limit, available=lambda: 64_000))
    monkeypatch.setattr(RunningLane, "start", start)
    monkeypatch.setattr(RunningLane, "deploy", lambda running, build: made.deploy(running, build))
    monkeypatch.setattr(CellRunner, "why_not", lambda _runner, _cell: None)
    monkeypatch.setattr(CellRunner, "run", run)
    return made


class Daemon:
    """libvirt's daemon. While it is away, machines live on and nobody can be asked about them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # How many attempts to connect fail before it is back.
        self.refusals = 0
        self.is_away = False
        self.ended: list[str] = []
        open_, destroy, state = libvirt.open, libvirt.virDomain.destroy, libvirt.virDomain.state

        def connect(uri: str) -> libvirt.virConnect:
            if self.is_away:
                self.refusals -= 1
                if self.refusals >= 0:
                    return open_("qemu:///system?socket=/no/such/socket")
                self.is_away = False
            return open_(uri)

        def unless_away(call: Callable[..., Any]) -> Callable[..., Any]:
            def ask(machine: libvirt.virDomain, *arguments: Any) -> Any:
                if self.is_away:
                    raise libvirt.libvirtError("client socket is closed")
                return call(machine, *arguments)

            return ask

        def end(lane: str, uri: str, _port: int) -> None:
            self.ended.append(lane)
            destroy(open_(uri).lookupByName(lane))

        monkeypatch.setattr(libvirt, "open", connect)
        monkeypatch.setattr(libvirt.virDomain, "destroy", unless_away(destroy))
        monkeypatch.setattr(libvirt.virDomain, "state", unless_away(state))
        monkeypatch.setattr(leftovers, "end_machine", end)
        monkeypatch.setattr(libvirt_connection, "RETRY_SECONDS", 0.001)

    def goes(self, *, refusals: int) -> RunCell:
        """A cell in the middle of which the daemon dies; it is back after so many refusals."""

        def run(running: RunningLane, _cell: Cell) -> NoReturn:
            self.is_away, self.refusals = True, refusals
            running.lane.check_alive()
            raise AssertionError("nobody knows whether it is alive")

        return run


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    return Daemon(monkeypatch)


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C, from whatever thread."""
    main = threading.main_thread().ident
    assert main is not None
    # Where a shell put the tests into the background, they would not hear it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(main, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def boots(running: RunningLane) -> None:
    running.lane.start()
    running._facts = facts()
    running.lane.console.write_text("Linux version 6.12\nReached target\n")


def passes(_running: RunningLane, cell: Cell) -> CellResult:
    return cell.result(Status.PASS)


def fails(error: BaseException) -> RunCell:
    def run(_running: RunningLane, _cell: Cell) -> NoReturn:
        raise error

    return run


def dies(running: RunningLane, _cell: Cell) -> NoReturn:
    running.lane.domain.destroy()
    running.lane.check_alive()
    raise AssertionError("it is dead")


def until_given_up(running: RunningLane) -> NoReturn:
    """Run until the lane is taken down."""
    with suppress(DeadlineExpired):
        wait_for(lambda: None, Deadline(20, "the interrupt"), alive=running.lane.check_wanted, interval=0.01)
    raise AssertionError("it was not given up")


def at(where: str, *then: RunCell) -> RunCell:
    """Something else for one cell, "guest/variant", a step for each time that it is asked; then it passes."""
    steps = iter(then)

    def run(running: RunningLane, cell: Cell) -> CellResult:
        if where == f"{cell.guest.name}/{cell.variant.name}":
            return next(steps, passes)(running, cell)
        return passes(running, cell)

    return run


def first(of: str, error: Exception) -> Callable[[RunningLane], None]:
    """The first lane of a guest does not come up."""
    steps = iter([error])

    def boot(running: RunningLane) -> None:
        boots(running)
        if running.lane.guest.name == of and (failure := next(steps, None)):
            raise failure

    return boot


def statuses(run: RunResult) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in run.cells:
        found.setdefault(cell.guest, []).append(str(cell.status))
    return found


PASSED = {guest: ["pass", "pass"] for guest in GUESTS}


def test_every_cell_is_run_shown_and_written_and_nothing_is_left(lab: Lab) -> None:
    run = lab.run()
    assert statuses(run) == PASSED
    assert (run.exit_status(), run.run.interrupted, len(run.run.lanes)) == (0, False, 2)
    assert sorted(lab.heard.cells, key=str) == sorted(run.cells, key=str)
    assert RunResult.read(lab.folder) == run
    assert lab.left == []


def test_every_cell_says_how_to_run_it_again(lab: Lab) -> None:
    rerun = lab.run(cold=True).cells[3].rerun
    assert rerun == "lab matrix -g debian-13 -v max-userns-zero --build 0.10.8 --cold --rootfs /layout"


def test_emulation_is_said_once(lab: Lab) -> None:
    lab.run()
    assert len(lab.heard.notes) == 1
    assert "software emulation" in lab.heard.notes[0]


def test_the_guest_that_takes_longest_goes_first_and_what_is_left_is_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "is_ready", lambda _paths, _guest: True)
    lab.run(jobs=1, estimates=Seconds(10.0, {"debian-12": 30.0, "debian-13": 40.0}))
    assert [guest for guest, _ in lab.booted] == ["debian-13", "debian-12"]
    lefts = [left for left in lab.heard.lefts if left is not None]
    assert (lefts[0], lefts[-1]) == (160.0, 0.0)
    # At the start, when a lane comes up, at each cell.
    assert lefts == sorted(lefts, reverse=True)
    assert len(set(lefts)) >= 5


def test_until_every_guest_has_its_image_nobody_can_tell_what_is_left(lab: Lab) -> None:
    lab.run(jobs=1, estimates=Seconds(10.0, {"debian-12": 30.0, "debian-13": 40.0}))
    known = [left is not None for left in lab.heard.lefts]
    # Debian 12 is second; what is left is known from the moment that its image is there.
    assert (known[0], known[-1]) == (False, True)
    assert known == sorted(known)


def test_lanes_of_a_guest_share_its_cells_where_that_pays(lab: Lab) -> None:
    # No cell ends before another lane runs one too.
    together = threading.Barrier(2, timeout=20)

    def meets(running: RunningLane, cell: Cell) -> CellResult:
        together.wait()
        return passes(running, cell)

    lab.cell = meets
    run = lab.run(guests=ONE, builds=[OLDER, RELEASE], estimates=Seconds(10.0, {"debian-13": 100.0}))
    assert statuses(run) == {"debian-13": ["pass"] * 4}
    assert [len(lane) for lane in lab.lanes()] == [2, 2]


def test_a_guest_keeps_to_one_lane_where_another_does_not_pay(lab: Lab) -> None:
    lab.run(guests=ONE, builds=[OLDER, RELEASE], estimates=Seconds(200.0, {"debian-13": 100.0}))
    assert [len(lane) for lane in lab.lanes()] == [4]


@pytest.mark.parametrize("repeat", [1, 3])
def test_a_guest_boots_once_however_often_its_cells_are_run(lab: Lab, repeat: int) -> None:
    run = lab.run(guests=ONE, repeat=repeat)
    assert lab.lanes() == [["stock"] * repeat + ["max-userns-zero"] * repeat]
    assert [len(cell.repeats) for cell in run.cells] == [repeat if repeat > 1 else 0] * 2


@pytest.mark.parametrize("repeat", [1, 2])
def test_when_cold_every_run_of_a_cell_has_a_lane_of_its_own(lab: Lab, repeat: int) -> None:
    run = lab.run(guests=ONE, cold=True, repeat=repeat)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert [len(cell.repeats) for cell in run.cells] == [repeat if repeat > 1 else 0] * 2
    assert [len(lane) for lane in lab.lanes() if lane] == [1] * (2 * repeat)
    assert Counter(cell.variant.name for _, cell in lab.served) == dict.fromkeys(VARIANTS, repeat)
    assert all(cell.retried == [] for cell in run.cells)


def test_repeats_that_disagree_are_flaky_and_each_has_a_folder_of_its_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []
    kinds = iter([Status.PASS, Status.FAIL, Status.PASS])

    def run(_runner: CellRunner, cell: Cell, folder: Path) -> CellResult:
        folder.mkdir(parents=True)
        (folder / "kernel.log").touch()
        folders.append(folder.relative_to(lab.folder / cell.folder))
        return cell.result(next(kinds))

    monkeypatch.setattr(CellRunner, "run", run)
    [cell] = lab.run(guests=ONE, variants=["stock"], repeat=3).cells
    assert cell.status is Status.FLAKY
    assert [repeat.status for repeat in cell.repeats] == ["pass", "fail", "pass"]
    assert folders == [Path(), Path("repeat-2"), Path("repeat-3")]
    base = "cells/debian-13/stock/0.10.8"
    assert cell.evidence == [f"{base}/{name}kernel.log" for name in ("", "repeat-2/", "repeat-3/")]


def test_a_fault_is_tried_again_on_a_fresh_lane_and_told(lab: Lab) -> None:
    lab.cell = at("debian-13/stock", fails(LabError("SSH broke\nand so on")))
    run = lab.run(guests=ONE)
    assert lab.lanes() == [["stock", "max-userns-zero"], ["stock"]]
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert run.exit_status() == 0
    assert [cell.retried for cell in run.cells] == [["SSH broke\nand so on"], []]
    assert run.cells[0].evidence == ["cells/debian-13/stock/0.10.8/fault-1/console.log"]
    assert "debian-13 stock: to be tried again on a fresh lane: SSH broke" in lab.heard.notes
    assert lab.left == []


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_faults_beyond_the_retries_are_an_error_of_that_cell(lab: Lab, retries: int) -> None:
    faults = [f"fault {number}" for number in range(1, retries + 2)]
    lab.cell = at("debian-13/stock", *(fails(LabError(fault)) for fault in faults))
    run = lab.run(guests=ONE, retries=retries)
    assert statuses(run) == {"debian-13": ["error", "pass"]}
    assert run.exit_status() == 3
    broken = run.cells[0]
    assert (broken.retried, broken.reason) == (faults[:-1], faults[-1])
    assert lab.lanes() == [["stock", "max-userns-zero"], *[["stock"]] * retries]
    names = [f"fault-{number}/console.log" for number in range(1, retries + 1)]
    base = "cells/debian-13/stock/0.10.8"
    assert broken.evidence == [f"{base}/{name}" for name in ["console.log", *names]]


@pytest.mark.parametrize(
    "error",
    [
        NotInEffect("variant not in effect: the profile is in unconfined mode"),
        NotAsDefined("debian-13 should enforce the SELinux policy targeted, but SELinux is not in use"),
    ],
    ids=["variant", "guest"],
)
def test_a_fault_that_every_lane_would_meet_is_not_tried_again(lab: Lab, error: LabError) -> None:
    lab.cell = at("debian-13/stock", fails(error))
    run = lab.run(guests=ONE, retries=3)
    assert statuses(run) == {"debian-13": ["error", "pass"]}
    assert (run.cells[0].reason, run.cells[0].retried) == (str(error), [])
    assert lab.lanes() == [["stock", "max-userns-zero"]]
    assert run.cells[0].evidence == ["cells/debian-13/stock/0.10.8/console.log"]


def test_a_login_that_may_start_no_machine_is_told_once_for_each_cell(lab: Lab) -> None:
    refused = CoreLimited("libvirt could not start it: cannot limit core file size", hint="max_core = 0")

    def boot(running: RunningLane) -> None:
        raise refused

    lab.boot = boot
    run = lab.run(guests=ONE, retries=3)
    assert len(lab.booted) == 1
    assert [(cell.status, cell.reason, cell.retried) for cell in run.cells] == [
        (Status.ERROR, str(refused), []),
        (Status.ERROR, str(refused), []),
    ]


@pytest.mark.parametrize("status", [Status.FAIL, Status.XPASS, Status.XFAIL])
def test_what_boxlite_does_is_never_tried_again(lab: Lab, status: Status) -> None:
    lab.cell = at("debian-13/stock", lambda _running, cell: cell.result(status, reason="so it is"))
    run = lab.run(guests=ONE, retries=5)
    assert lab.lanes() == [["stock", "max-userns-zero"]]
    assert [(cell.status, cell.retried) for cell in run.cells] == [(status, []), (Status.PASS, [])]


@pytest.mark.parametrize(("times", "status"), [(1, "pass"), (2, "error")])
def test_a_verdict_that_is_the_labs_fault_is_tried_again_and_keeps_its_evidence(
    lab: Lab, times: int, status: str
) -> None:
    def slow(_running: RunningLane, cell: Cell) -> CellResult:
        (lab.folder / cell.folder).mkdir(parents=True, exist_ok=True)
        (lab.folder / cell.folder / "probes.json").touch()
        tests = [TestResult(name="a", outcome=Outcome.FAIL)]
        return cell.result(Status.ERROR, reason="too slow").model_copy(update={"tests": tests})

    lab.cell = at("debian-13/stock", *[slow] * times)
    run = lab.run(guests=ONE)
    assert lab.lanes() == [["stock", "max-userns-zero"], ["stock"]]
    assert statuses(run) == {"debian-13": [status, "pass"]}
    tried = run.cells[0]
    assert tried.retried == ["too slow"]
    base = "cells/debian-13/stock/0.10.8"
    assert tried.evidence == [f"{base}/{name}probes.json" for name in ["fault-1/", ""][:times]]
    assert [test.name for test in tried.tests] == ["a"] * (times - 1)


def test_a_fault_in_a_repeat_loses_no_repeat_that_ended(lab: Lab) -> None:
    lab.cell = at("debian-13/stock", passes, fails(LabError("SSH broke")))
    run = lab.run(guests=ONE, variants=["stock"], repeat=3)
    assert lab.lanes() == [["stock", "stock"], ["stock", "stock"]]
    [cell] = run.cells
    assert (cell.status, cell.retried, len(cell.repeats)) == (Status.PASS, ["SSH broke"], 3)


@pytest.mark.parametrize(
    "error", [libvirt.libvirtError("no daemon"), DISK_FULL], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("during", ["prepare", "run"])
def test_a_fault_of_the_host_does_not_lose_the_cell_that_met_it(
    lab: Lab, during: str, error: Exception
) -> None:
    failing = iter([error])

    def deploy(_running: RunningLane, _build: Build) -> dict[str, str]:
        if failure := next(failing, None):
            raise failure
        return {}

    if during == "prepare":
        lab.deploy = deploy
    else:
        lab.cell = at("debian-13/stock", fails(error))
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert run.cells[0].retried == [str(error)]


def test_a_build_that_cannot_be_had_costs_no_boot_for_each_cell(lab: Lab) -> None:
    def deploy(_running: RunningLane, _build: Build) -> NoReturn:
        raise LabError("pip could not fetch boxlite: no network")

    lab.deploy = deploy
    run = lab.run(guests=ONE, variants=["stock", "max-userns-zero", "userns-clone-off"], jobs=1)
    assert statuses(run) == {"debian-13": ["error"] * 3}
    assert {cell.reason for cell in run.cells} == {"pip could not fetch boxlite: no network"}
    assert len(lab.booted) == 2


@pytest.mark.parametrize("retries", [0, 1])
def test_a_console_that_cannot_be_kept_does_not_lose_the_cell(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    def keep_console(_lane: object, _folder: Path) -> NoReturn:
        raise DISK_FULL

    monkeypatch.setattr(decisions, "keep_console", keep_console)
    lab.cell = at("debian-13/stock", fails(LabError("SSH broke")))
    run = lab.run(guests=ONE, retries=retries)
    assert statuses(run) == {"debian-13": ["pass" if retries else "error", "pass"]}
    assert (run.cells[0].retried, run.cells[0].reason) == (
        (["SSH broke"], "") if retries else ([], "SSH broke")
    )


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
    assert lab.left == []


@pytest.mark.parametrize("seen_by", ["libvirt", "SSH"])
def test_on_a_dead_machine_no_further_cell_is_run(lab: Lab, seen_by: str) -> None:
    def run_cell(running: RunningLane, cell: Cell) -> NoReturn:
        running.lane.domain.destroy()
        if seen_by == "libvirt":
            running.lane.check_alive()
        raise LabError("SSH broke")

    lab.cell = run_cell
    run = lab.run(guests=ONE, retries=0)
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]
    assert statuses(run) == {"debian-13": ["error", "error"]}
    for cell in run.cells:
        assert "the machine of debian-13 " in cell.reason
        # What was met first is kept, where that was not the machine itself.
        assert cell.reason.startswith("SSH broke\n") is (seen_by == "SSH")


def test_a_daemon_that_dies_and_comes_back_costs_a_lane_and_no_cell(lab: Lab, daemon: Daemon) -> None:
    lab.cell = at("debian-13/stock", daemon.goes(refusals=3))
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    [reason] = run.cells[0].retried
    assert "the machine of debian-13 can no longer be asked about" in reason
    assert run.cells[1].retried == []
    # The machine that outlived its daemon was ended, without it.
    assert daemon.ended == [lab.booted[0][1]]
    assert (len(lab.booted), daemon.is_away, lab.left) == (2, False, [])


def test_a_daemon_that_stays_away_makes_the_rest_errors_which_say_so(
    lab: Lab, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RESTART_SECONDS", 0.05)
    lab.cell = at("debian-13/stock", daemon.goes(refusals=10**9))
    run = lab.run(guests=ONE)
    daemon.is_away = False
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert all("cannot connect to" in cell.reason for cell in run.cells)
    assert lab.left == []


def test_an_interrupt_ends_the_wait_for_a_daemon(
    lab: Lab, daemon: Daemon, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(_lane: str, text: str) -> None:
        if text == "waiting for libvirt to come back":
            interrupt()

    lab.cell = at("debian-13/stock", daemon.goes(refusals=10**9))
    monkeypatch.setattr(lab.heard, "lane", say)
    run = lab.run(guests=ONE)
    daemon.is_away = False
    assert run.run.interrupted
    assert statuses(run) == {"debian-13": ["not-run", "not-run"]}
    assert lab.left == []


def test_a_machine_that_outlives_its_lane_is_taken_down_when_the_daemon_is_back(
    lab: Lab, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = leftovers.end_machine

    def not_without_daemon(lane: str, uri: str, port: int) -> None:
        if daemon.is_away:
            raise LeftBehind(f"the machine of {lane} could not be ended")
        end(lane, uri, port)

    monkeypatch.setattr(leftovers, "end_machine", not_without_daemon)
    lab.cell = at("debian-13/stock", daemon.goes(refusals=3))
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert daemon.ended == [lab.booted[0][1]]
    assert any("could not be ended" in note for note in lab.heard.notes)
    assert lab.left == []


def test_a_lane_that_does_not_come_up_is_a_fault_of_all_its_cells_which_a_fresh_one_runs(lab: Lab) -> None:
    lab.boot = first("debian-12", LabError("no boot"))
    run = lab.run()
    assert statuses(run) == PASSED
    assert [cell.retried for cell in run.cells] == [["no boot"]] * 2 + [[]] * 2
    assert lab.lanes(of="debian-12") == [[], VARIANTS]
    # A lane that did not come up has served nothing, and is not in the record.
    assert [lane.guest for lane in run.run.lanes].count("debian-12") == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_a_failed_cloud_init_leaves_its_log_as_evidence_of_each_attempt(lab: Lab, retries: int) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        raise CloudInitFailed("cloud-init in the guest failed: no module", "the whole log")

    lab.boot = boot
    run = lab.run(guests=ONE, retries=retries)
    assert statuses(run) == {"debian-13": ["error", "error"]}
    assert len(lab.booted) == retries + 1
    for cell in run.cells:
        logs = [file for file in cell.evidence if file.endswith("/cloud-init.log")]
        assert len(logs) == retries + 1
        assert {(lab.folder / log).read_text() for log in logs} == {"the whole log"}


def test_a_further_lane_that_does_not_come_up_costs_nobody_a_retry(lab: Lab) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        if len(lab.booted) > 1:
            raise LabError("not enough of something for two")

    def waits_for_the_second_lane(running: RunningLane, cell: Cell) -> CellResult:
        assert lab.heard.ended["debian-13 #2"].wait(20)
        return passes(running, cell)

    lab.boot = boot
    lab.cell = waits_for_the_second_lane
    run = lab.run(guests=ONE, builds=[OLDER, RELEASE], retries=0, estimates=Seconds(10.0, {"debian-13": 100.0}))
    assert statuses(run) == {"debian-13": ["pass"] * 4}
    assert [cell.retried for cell in run.cells] == [[]] * 4
    assert [len(lane) for lane in lab.lanes()] == [4, 0]


# Where it cannot be built a fresh lane is no help; a fault of the host is tried again like any other.
@pytest.mark.parametrize(
    ("error", "tries"),
    [(LabError("no package"), 1), (libvirt.libvirtError("no daemon"), 2), (DISK_FULL, 2)],
    ids=["cannot be built", "libvirt", "disk full"],
)
def test_a_guest_without_an_image_makes_its_cells_errors_and_the_others_go_on(
    lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    asked: list[str] = []

    def ensure(_paths: Paths, guest: Guest, _say: object) -> BaseImage:
        asked.append(guest.name)
        if guest.name == "debian-12":
            raise error
        return image

    monkeypatch.setattr(store, "ensure", ensure)
    run = lab.run()
    assert statuses(run) == {"debian-12": ["error", "error"], "debian-13": ["pass", "pass"]}
    assert {cell.reason for cell in run.cells[:2]} == {str(error)}
    assert asked.count("debian-12") == tries
    assert run.exit_status() == 3


def test_a_guest_whose_image_cannot_be_had_is_not_run_and_the_others_are(
    lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ensure(_paths: Paths, guest: Guest, _say: object) -> BaseImage:
        asked.append(guest.name)
        if guest.name == "debian-12":
            raise ImageNotAvailable("the host is unreachable", hint="import it")
        return image

    monkeypatch.setattr(store, "ensure", ensure)
    run = lab.run(retries=3)
    assert statuses(run) == {"debian-12": ["not-run", "not-run"], "debian-13": ["pass", "pass"]}
    assert {cell.reason for cell in run.cells[:2]} == {"image not available: the host is unreachable"}
    assert asked.count("debian-12") == 1
    assert lab.heard.notes.count("debian-12: the host is unreachable\n  next: import it") == 1
    assert run.exit_status() == 3


def test_lanes_wait_for_the_memory_of_others(lab: Lab) -> None:
    def alone(running: RunningLane) -> None:
        assert [folder.name for folder in lab.paths.lanes.glob("lab-*")] == [running.lane.name]
        boots(running)

    lab.boot = alone
    run = lab.run(jobs=4, memory=2 * LANE_MIB - 1)
    assert statuses(run) == PASSED
    assert len(lab.booted) == 2


def test_a_guest_that_the_host_has_no_memory_for_is_not_run_and_the_others_are(lab: Lab) -> None:
    run = lab.run(memory=4096, sizes={"debian-12": 8192})
    assert statuses(run) == {"debian-12": ["not-run", "not-run"], "debian-13": ["pass", "pass"]}
    assert {cell.reason for cell in run.cells[:2]} == {
        "a lane needs 9216 MiB of memory, and 4096 of the 4096 MiB for lanes are left"
    }
    assert run.exit_status() == 3


def test_a_build_that_has_nothing_for_a_guest_is_not_applicable_there_and_the_other_is_run(
    lab: Lab, tmp_path: Path
) -> None:
    sides: set[Build | None] = set()

    def deploy(running: RunningLane, build: Build) -> dict[str, str]:
        sides.add(running.work.build)
        if running.lane.guest.name == "debian-12" and build == OLDER:
            running._facts = facts(python="3.11")
            raise NotApplicable("boxlite has no wheels for Python 3.11")
        return {"boxlite.whl": "2" * 64} if build == RELEASE else {}

    lab.deploy = deploy
    run = lab.run(builds=[OLDER, RELEASE])
    assert statuses(run) == {"debian-12": ["n/a", "pass"] * 2, "debian-13": ["pass"] * 4}
    reasons = {(cell.build, cell.reason) for cell in run.cells if cell.guest == "debian-12"}
    assert reasons == {("0.9.0", "boxlite has no wheels for Python 3.11"), ("0.10.8", "")}
    # What the reason rests on was read in the guest, and is there to be read.
    known = [cell.facts for cell in run.cells if cell.status is Status.NOT_APPLICABLE]
    assert known == [facts(python="3.11")] * 2
    assert len(lab.lanes(of="debian-12")) == 1
    assert sides == {None}
    assert [build.files for build in run.run.builds] == [{}, {"boxlite.whl": "2" * 64}]
    assert run.exit_status() == 0


def test_a_variant_that_makes_no_sense_on_a_guest_is_not_run_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def why_not(_runner: CellRunner, cell: Cell) -> str | None:
        return "no such sysctl" if cell.variant.name == "max-userns-zero" else None

    monkeypatch.setattr(CellRunner, "why_not", why_not)
    run = lab.run(guests=ONE)
    assert [(cell.status, cell.reason) for cell in run.cells] == [("pass", ""), ("n/a", "no such sysctl")]
    assert lab.lanes() == [["stock"]]


def test_a_resumed_run_runs_only_what_is_left(lab: Lab) -> None:
    def kept(cell: Cell) -> CellResult | None:
        left = cell.name == "debian-13/max-userns-zero/0.10.8"
        return None if left else cell.result(Status.FAIL, reason="kept")

    run = lab.run(kept=kept)
    assert statuses(run) == {"debian-12": ["fail", "fail"], "debian-13": ["fail", "pass"]}
    assert [cell.reason for cell in run.cells] == ["kept", "kept", "kept", ""]
    assert lab.lanes() == [["max-userns-zero"]]
    assert lab.lanes(of="debian-12") == []
    assert len(lab.heard.cells) == 1


def test_results_that_cannot_be_written_end_the_run(lab: Lab) -> None:
    def takes_the_place_of_the_results(_running: RunningLane, cell: Cell) -> CellResult:
        (lab.folder / "results.json").unlink()
        (lab.folder / "results.json").mkdir()
        return cell.result(Status.PASS)

    lab.cell = takes_the_place_of_the_results
    with pytest.raises(ResultsNotWritten, match=f"the results cannot be written into {lab.folder}"):
        lab.run(jobs=1)
    assert len(lab.served) == 1
    assert lab.left == []


def test_a_bug_in_a_lane_ends_the_others_after_their_cell_and_is_raised(lab: Lab) -> None:
    other_runs = threading.Event()

    def run_cell(running: RunningLane, cell: Cell) -> CellResult:
        if cell.guest.name == "debian-12":
            assert other_runs.wait(20)
            raise ZeroDivisionError("a bug")
        other_runs.set()
        assert lab.heard.ended["debian-12"].wait(20)
        return passes(running, cell)

    lab.cell = run_cell
    with pytest.raises(ZeroDivisionError, match="a bug"):
        lab.run()
    run = RunResult.read(lab.folder)
    assert statuses(run) == {"debian-12": ["not-run", "not-run"], "debian-13": ["pass", "not-run"]}
    assert run.run.finished is None
    assert lab.left == []


@pytest.mark.parametrize(("jobs", "retries"), [(1, 0), (2, 3)])
def test_an_interrupt_keeps_what_there_is_and_the_rest_is_not_run(
    lab: Lab, interrupt: Callable[[], None], jobs: int, retries: int
) -> None:
    other_runs = threading.Event()

    def run_cell(running: RunningLane, cell: Cell) -> CellResult:
        if cell.name == "debian-12/stock/0.10.8":
            return passes(running, cell)
        if cell.guest.name == "debian-13":
            other_runs.set()
        else:
            assert jobs == 1 or other_runs.wait(20)
            interrupt()
        until_given_up(running)

    lab.cell = run_cell
    run = lab.run(jobs=jobs, retries=retries)
    assert statuses(run) == {"debian-12": ["pass", "not-run"], "debian-13": ["not-run", "not-run"]}
    assert {cell.reason for cell in run.cells[1:]} == {"interrupted"}
    assert [cell.retried for cell in run.cells] == [[]] * 4
    assert run.run.interrupted
    assert run.exit_status() == 3
    assert RunResult.read(lab.folder) == run
    assert (len(lab.heard.cells), len(lab.heard.notes)) == (1, 1)
    assert lab.left == []


def test_an_interrupt_while_a_lane_comes_up_is_no_fault_of_its_cells(
    lab: Lab, interrupt: Callable[[], None]
) -> None:
    def boot(running: RunningLane) -> None:
        boots(running)
        interrupt()
        until_given_up(running)

    lab.boot = boot
    run = lab.run(jobs=1, retries=0)
    assert {(cell.status, cell.reason) for cell in run.cells} == {("not-run", "interrupted")}
    assert len(lab.booted) == 1
    assert lab.left == []


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


def test_without_libvirt_nothing_is_begun(lab: Lab) -> None:
    with pytest.raises(NoLibvirt):
        lab.run(uri="test+bogus:///x")
    assert not lab.folder.exists()


@pytest.fixture
def cloud(lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> BaseImage:
    """Guests whose image boots itself, and has to be prepared first."""
    made = replace(image, firmware=Firmware.BIOS)
    monkeypatch.setattr(store, "ensure", lambda _paths, _guest, _say: made)
    return made


def test_lanes_of_a_guest_that_was_prepared_start_from_what_was_made(
    lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[BaseImage] = []
    prepared = replace(cloud, manifest=replace(cloud.manifest, disk_sha256="2" * 64))

    def boot(running: RunningLane) -> None:
        images.append(running.lane.image)
        boots(running)

    lab.boot = boot
    monkeypatch.setattr(prepare, "ensure", lambda _work, _guest, base: prepared if base == cloud else None)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert images == [prepared]
    assert [lane.image for lane in run.run.lanes] == ["2" * 64]


def test_a_guest_that_cannot_be_prepared_has_the_reason_and_the_evidence_in_each_of_its_cells(
    lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(_work: object, guest: Guest, _image: object) -> BaseImage:
        if guest.name == "debian-12":
            raise NotPrepared("debian-12 lacks bubblewrap", hint="a network", evidence={"console.log": "Linux"})
        return cloud

    monkeypatch.setattr(prepare, "ensure", ensure)
    run = lab.run()
    assert statuses(run) == {"debian-12": ["error", "error"], "debian-13": ["pass", "pass"]}
    for cell in run.cells[:2]:
        assert (cell.reason, cell.retried) == ("debian-12 lacks bubblewrap\n  next: a network", [])
        assert [(lab.folder / name).read_text() for name in cell.evidence] == ["Linux"]
    assert lab.lanes(of="debian-12") == []
    assert run.exit_status() == 3


def test_a_machine_that_dies_while_its_guest_is_prepared_gets_another_chance(
    lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([LaneDied("the machine of debian-13 is gone")])

    def ensure(*_: object) -> BaseImage:
        if error := next(steps, None):
            raise error
        return cloud

    monkeypatch.setattr(prepare, "ensure", ensure)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert [cell.retried for cell in run.cells] == [["the machine of debian-13 is gone"]] * 2


def test_an_interrupt_takes_down_the_machine_of_a_guest_that_is_being_prepared(
    lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    held: list[Lane] = []

    def ensure(work: prepare.Preparation, guest: Guest, image: BaseImage) -> NoReturn:
        with lane.open_lane(
            work.connection, work.paths, guest=guest, image=image, acceleration=work.acceleration, uri=URI
        ) as made:
            work.on_lane(made)
            held.append(made)
            made.start()
            interrupt()
            gone = Deadline(20, "the interrupt")
            wait_for(lambda: None, gone, alive=made.check_wanted, interval=0.01)
        raise AssertionError("it was not given up")

    monkeypatch.setattr(prepare, "ensure", ensure)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["not-run", "not-run"]}
    assert (run.run.interrupted, len(held), lab.left) == (True, 1, [])


def blocked(_running: RunningLane, cell: Cell) -> CellResult:
    return cell.result(Status.XFAIL).model_copy(update={"cause": "userns-limit"})


@pytest.fixture
def trials(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The cells on which remedies were tried, each with its lane; one remedy is verified on each."""
    made: list[tuple[str, str]] = []

    def try_all(trials: Trials) -> list[RemedyResult]:
        assert "userns-limit-raise" in trials.policy.remedies
        made.append((trials.cell.variant.name, trials.runner.running.lane.name))
        return [RemedyResult(name="a", result=RemedyOutcome.VERIFIED, price="", seconds=1.0)]

    monkeypatch.setattr(Trials, "all", try_all)
    return made


@pytest.mark.parametrize(("remedies", "repeat"), [(True, 1), (True, 3), (False, 1)])
def test_remedies_are_tried_once_on_each_cell_that_failed(
    lab: Lab, trials: list[tuple[str, str]], remedies: bool, repeat: int
) -> None:
    lab.cell = at("debian-13/max-userns-zero", *[blocked] * repeat)
    run = lab.run(guests=ONE, remedies=remedies, repeat=repeat)
    assert statuses(run) == {"debian-13": ["pass", "xfail"]}
    assert [name for name, _ in trials] == (["max-userns-zero"] if remedies else [])
    assert [len(cell.remedies) for cell in run.cells] == [0, int(remedies)]
    assert RunResult.read(lab.folder) == run


def test_a_flaky_cell_has_nothing_to_cure(lab: Lab, trials: list[tuple[str, str]]) -> None:
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, repeat=2)
    assert statuses(run) == {"debian-13": ["flaky"]}
    assert trials == []


def test_a_lane_that_a_remedy_killed_keeps_its_cell_s_result_and_costs_no_other_cell(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = [RemedyResult(name="a", result=RemedyOutcome.ERROR, price="", reason="the machine is gone")]

    def kill(each: Trials) -> list[RemedyResult]:
        each.runner.running.lane.domain.destroy()
        return killed

    monkeypatch.setattr(Trials, "all", kill)
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, remedies=True, retries=0)
    assert statuses(run) == {"debian-13": ["xfail", "pass"]}
    assert run.cells[0].remedies == killed
    # The other one has a lane of its own.
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]
    assert lab.left == []


def test_trials_that_a_dead_lane_left_over_are_made_on_a_fresh_one(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = RemedyResult(name="a", result=RemedyOutcome.VERIFIED, price="")
    lanes: list[tuple[str, list[str]]] = []

    def try_two(each: Trials) -> list[RemedyResult]:
        lane = each.runner.running.lane
        lanes.append((lane.name, list(each.finished)))
        if len(lanes) > 1:
            return [verified, verified.model_copy(update={"name": "b"})]
        each.finished["a"] = Trial((), verified)
        lane.domain.destroy()
        return [verified, RemedyResult(name="b", result=RemedyOutcome.ERROR, price="", reason="it is gone")]

    monkeypatch.setattr(Trials, "all", try_two)
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, remedies=True, retries=1)
    assert statuses(run) == {"debian-13": ["xfail", "pass"]}
    assert [(each.name, each.result) for each in run.cells[0].remedies] == [
        ("a", RemedyOutcome.VERIFIED),
        ("b", RemedyOutcome.VERIFIED),
    ]
    # The suite is not run again, and the fresh lane knows what the dead one has done.
    assert lab.lanes() == [["stock"], ["max-userns-zero"]]
    assert [made for _, made in lanes] == [[], ["a"]]
    assert lanes[0][0] != lanes[1][0]
    [retried] = run.cells[0].retried
    assert "is gone" in retried
    assert (run.cells[0].unfinished, run.cells[0].has_more_to_try) == (False, False)
    assert any("the rest of its trials is to be made on a fresh lane" in note for note in lab.heard.notes)
    assert "Reached target" in (lab.folder / run.cells[0].folder / "fault-1/console.log").read_text()
    assert lab.left == []


def test_trials_are_given_up_when_every_lane_dies_in_them(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(each: Trials) -> list[RemedyResult]:
        each.runner.running.lane.domain.destroy()
        return [RemedyResult(name="a", result=RemedyOutcome.ERROR, price="", reason="it is gone")]

    monkeypatch.setattr(Trials, "all", kill)
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, retries=1)
    assert len(lab.booted) == 2
    assert statuses(run) == {"debian-13": ["xfail"]}
    assert (len(run.cells[0].retried), run.cells[0].has_more_to_try) == (1, True)
    assert lab.left == []


def test_an_interrupt_while_remedies_are_tried_leaves_those_to_a_later_run(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    def try_all(each: Trials) -> list[RemedyResult]:
        interrupt()
        until_given_up(each.runner.running)

    monkeypatch.setattr(Trials, "all", try_all)
    lab.cell = at("debian-13/stock", blocked)
    run = lab.run(guests=ONE, variants=["stock"], remedies=True)
    # What the suite showed is known.
    assert statuses(run) == {"debian-13": ["xfail"]}
    assert (run.run.interrupted, run.cells[0].unfinished, run.cells[0].has_more_to_try) == (True, True, True)
    assert RunResult.read(lab.folder) == run
    assert lab.left == []


def half_tried(cell: Cell) -> CellResult:
    """A cell of an earlier run, one of whose remedies met a fault of the lab's own."""
    fault = RemedyResult(name="a", result=RemedyOutcome.ERROR, price="", reason="the machine is gone")
    update = {"remedies": [fault], "lane": "an earlier one", "retried": ["no SSH"]}
    return cell.result(Status.XFAIL).model_copy(update={"cause": "userns-limit", **update})


def test_a_resumed_run_tries_what_met_a_fault_and_runs_no_suite_again(
    lab: Lab, trials: list[tuple[str, str]]
) -> None:
    lab.cell = fails(AssertionError("its suite was run"))
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, kept=half_tried)
    [cell] = run.cells
    assert (cell.status, [str(each.result) for each in cell.remedies]) == ("xfail", ["verified"])
    assert (cell.lane, cell.retried, cell.unfinished) == ("an earlier one", ["no SSH"], False)
    assert [name for name, _ in trials] == ["stock"]
    assert len(lab.heard.cells) == 1


def test_a_cell_that_was_decided_stays_so_where_a_resumed_run_has_no_lane_for_it(
    lab: Lab, trials: list[tuple[str, str]]
) -> None:
    def boot(_running: RunningLane) -> NoReturn:
        raise LabError("no SSH")

    lab.boot = boot
    run = lab.run(guests=ONE, variants=["stock"], remedies=True, retries=1, kept=half_tried)
    [cell] = run.cells
    assert (cell.status, cell.has_more_to_try, trials) == ("xfail", True, [])
    assert lab.left == []


def test_a_cell_s_experiment_comes_before_its_remedies_and_knows_what_passed(
    lab: Lab, trials: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, list[str], ExperimentPolicy]] = []

    def experimented(
        policy: Policy,
        _runner: CellRunner,
        cell: Cell,
        result: CellResult,
        passing: Sequence[CellResult],
        _so_far: Steps,
    ) -> CellResult:
        heard.append((cell.variant.name, [each.variant for each in passing], policy.experiments))
        assert trials == []
        return result.model_copy(update={"experiment": Experiment(tests=["a"])})

    monkeypatch.setattr(experiment, "with_experiment", experimented)
    lab.cell = at("debian-13/max-userns-zero", blocked)
    run = lab.run(guests=ONE, remedies=True, experiments=ExperimentPolicy.UNCLEAR)
    assert heard == [
        ("stock", [], ExperimentPolicy.UNCLEAR),
        ("max-userns-zero", ["stock"], ExperimentPolicy.UNCLEAR),
    ]
    assert [name for name, _ in trials] == ["max-userns-zero"]
    assert [cell.experiment is not None for cell in run.cells] == [True, True]
    assert RunResult.read(lab.folder) == run
