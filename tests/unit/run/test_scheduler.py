"""Runs that come to their end without a lane."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.builds.kinds.wheel import Wheel
from lab.catalog.knobs import Sysctl
from lab.machine.acceleration import Acceleration
from lab.machine.budget import HostLimits, Memory
from lab.plan import choose_cells
from lab.record import LaneRecord, RunOptions, Status
from lab.run import scheduler, start
from lab.run.observer import Observer
from lab.run.priority import OVER_BUDGET, Budget, PastOutcomes
from lab.run.scheduler import Scheduler
from lab.run.worker import Worker
from tests.builders.cells import changed
from tests.builders.facts import facts
from tests.builders.lanes import fails
from tests.builders.runs import host

KNOWN = catalog.load_catalog()
IPC = "user.max_ipc_namespaces"
RELEASE = Wheel("0.10.8", "0.10.8")
CELLS = choose_cells(KNOWN, guests=["debian-12", "debian-13"], variants=["stock"]).cells([RELEASE])
BLOCKED = [
    "userns-clone-off",
    "max-userns-zero",
    "kvm-denied",
    "apparmor-mount-deny",
    "home-noexec",
    "nproc-12",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def no_lane(*_: object) -> None:
        raise AssertionError("a lane was opened")

    monkeypatch.setattr(scheduler, "hold_connection", lambda uri: nullcontext())
    monkeypatch.setattr(Worker, "work", no_lane)
    monkeypatch.setattr(scheduler, "Memory", lambda limit: Memory(limit, available=lambda: 64_000))
    return tmp_path / "run"


def run_of(folder: Path, *, observer: Any = None, **more: Any) -> Scheduler:
    planned = start.begin_run(folder, CELLS, command="lab matrix", options=RunOptions(rootfs="/layout"))
    paths = Paths(cache=folder.parent / "cache", state=folder.parent / "state")
    shows, limits = observer or Observer(), HostLimits(jobs=2, memory_mib=None)
    return Scheduler(replace(planned, **more), paths, "", limits, shows)


def test_each_guest_is_asked_for_every_variant_s_sysctls(folder: Path) -> None:
    own = KNOWN.variant("stock").model_copy(update={"name": "no-ipc", "sysctl": Sysctl({IPC: 0})})
    cells = [CELLS[0], replace(CELLS[1], variant=own)]
    assert set(begin(run_of(folder)).work.sysctls) == set(KNOWN.sysctls())
    assert set(begin(run_of(folder, cells=cells)).work.sysctls) == {IPC, *KNOWN.sysctls()}
    # A kept result may be of a catalog with more variants.
    kept = changed(CELLS[0].result(Status.PASS), facts=facts(sysctls={IPC: "31437"}))
    assert IPC in begin(run_of(folder, earlier_results={CELLS[0].folder: kept})).work.sysctls


def test_lanes_are_for_the_one_build_of_a_run_unless_cells_with_others_may_follow(folder: Path) -> None:
    assert begin(run_of(folder)).work.build == RELEASE
    # A bisection: what was stored with one build is no place to go back to for another.
    followed = run_of(folder)
    followed.follow = lambda _result: ()
    assert begin(followed).work.build is None


def test_a_run_of_which_everything_is_kept_is_at_its_end(folder: Path) -> None:
    kept = {cell.folder: cell.result(Status.PASS) for cell in CELLS}
    run = run_of(folder, earlier_results=kept).run()
    assert run.cells == list(kept.values())
    assert run.run.finished is not None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LabError("no static busybox"), "no static busybox"),
        (OSError(28, "No space left on device"), "No space left on device: .*MiB are free in .*; a run needs"),
    ],
)
def test_a_run_that_could_not_be_prepared_leaves_no_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr(rootfs, "make", lambda *_: fails(error)())
    info = run_of(folder).planned.info.model_copy(update={"options": RunOptions()})
    with pytest.raises(LabError, match=message):
        run_of(folder, info=info).run()
    assert list(folder.iterdir()) == []


def test_a_resumed_run_keeps_both_hosts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(worker: Worker) -> None:
        here = host(kernel=kernel)
        worker.journal.begin_on(here, worker.machine.guest.arch)
        made = LaneRecord(guest=worker.machine.guest.name, image="1" * 64, fork="memory", seconds={})
        worker.journal.add_lane(made.in_run(worker.label, here))
        while ticket := worker.backlog.take(worker.machine.name, worker.number):
            worker.decisions.decide(ticket, ticket.cell.result(status), worker.label)

    monkeypatch.setattr(Worker, "work", serve)
    kernel, status = "6.12", Status.PASS
    first = run_of(folder, cells=CELLS[1:]).run()
    kept = {CELLS[1].folder: first.cells[0]}
    more = replace(CELLS[1], variant=KNOWN.variant("userns-clone-off"))
    kernel = "6.18"
    again = run_of(folder, earlier_results=kept, info=first.run, cells=[CELLS[1], more]).run()
    assert [lane.label for lane in again.run.lanes] == ["debian-13", "debian-13 #2"]
    assert [cell.history.lane for cell in again.cells] == ["debian-13", "debian-13 #2"]
    kernels = [[host.kernel for host in again.run.hosts(cell.guest, cell.history.lane)] for cell in again.cells]
    assert kernels == [["6.12"], ["6.18"]]
    assert again.run.host == host(kernel="6.12")


def begin(scheduler: Scheduler) -> Scheduler:
    """The scheduler right before it opens its first lane."""
    scheduler.planned.folder.mkdir(exist_ok=True)
    scheduler.begin()
    scheduler.memory = Memory(None, available=lambda: 64_000)
    return scheduler


def admitted(scheduler: Scheduler, number: int, acceleration: str) -> str:
    """The label of the lane that is opened next and comes up; empty if none is opened."""
    worker = scheduler.admit_lane(number, {})
    if worker is None:
        return ""
    worker.acceleration = Acceleration(acceleration == "kvm", "")
    scheduler.backlog.lane_is_up(worker.machine.name, number)
    return worker.label


@pytest.mark.parametrize(("acceleration", "third"), [("emulation", "debian-14"), ("kvm", "")])
def test_emulated_guests_have_a_spare_lane(folder: Path, acceleration: str, third: str) -> None:
    # So much for the first guest that a second lane of it would pay at any time.
    plan = choose_cells(KNOWN, guests=["debian-12"], variants=[*BLOCKED, "stock"]).cells([RELEASE])
    plan += choose_cells(KNOWN, guests=["debian-13", "debian-14"], variants=["stock"]).cells([RELEASE])
    begun = run_of(folder, cells=plan)
    begun = begin(replace(begun, limits=replace(begun.limits, jobs=1, spare=1)))
    assert admitted(begun, 1, acceleration) == "debian-12"
    assert admitted(begun, 2, acceleration) == ("debian-13" if third else "")
    assert admitted(begun, 3, acceleration) == ""
    begun.limits = replace(begun.limits, jobs=2)
    assert admitted(begun, 3, acceleration) == (third or "debian-12 #2")
    assert admitted(begun, 4, acceleration) == ""


def test_what_a_budget_leaves_is_not_run_with_the_reason(folder: Path) -> None:
    kept = {CELLS[0].folder: CELLS[0].result(Status.PASS)}
    run = run_of(folder, earlier_results=kept)
    run.budget = Budget(0.0, PastOutcomes())
    assert [(cell.status, cell.reason) for cell in run.run().cells] == [
        (Status.PASS, ""),
        (Status.NOT_RUN, OVER_BUDGET),
    ]
