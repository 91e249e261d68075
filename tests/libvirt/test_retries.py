"""A fault of the lab's own: which cells are tried again on a fresh lane, how often, and what is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import libvirt
import pytest

from lab.base.errors import ImageNotAvailable, LabError, UserCannotBuild
from lab.guest.ready import NotAsDefined
from lab.guest.variant import NotInEffect
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.lane.prepare_image import NotPrepared
from lab.lane.running import RunningLane
from lab.machine import acceleration, console
from lab.machine.acceleration import Acceleration
from lab.machine.clock import RATE, REAL, Clock
from lab.machine.lane import BootFailed, LaneDied
from lab.plan import Cell
from lab.record import CellResult, Fault, Outcome, Status, TestResult
from tests.builders.cells import changed
from tests.builders.lab import DISK_FULL, ONE, Lab, at, boots, fails, passes, statuses


@pytest.mark.parametrize(("faults", "retries"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_a_fault_is_tried_again_on_a_fresh_lane_and_then_an_error(lab: Lab, faults: int, retries: int) -> None:
    reasons = [f"fault {number}\nand so on" for number in range(1, faults + 1)]
    lab.cell = at("debian-13/stock", *(fails(LabError(reason)) for reason in reasons))
    run = lab.run(guests=ONE, retries=retries)
    is_error = faults > retries
    assert statuses(run) == {"debian-13": ["error" if is_error else "pass", "pass"]}
    assert run.exit_status() == (3 if is_error else 0)
    retried = reasons[:-1] if is_error else reasons
    assert [(cell.history.retried, cell.reason) for cell in run.cells] == [
        (retried, reasons[-1] if is_error else ""),
        ([], ""),
    ]
    assert lab.lanes() == [["stock", "max-userns-zero"], *[["stock"]] * len(retried)]
    names = ["console.log"] * is_error + [f"fault-{number}/console.log" for number, _ in enumerate(retried, 1)]
    assert run.cells[0].evidence == [f"cells/debian-13/stock/0.10.8/{name}" for name in names]
    notes = [note for note in lab.heard.notes if "to be tried again on a fresh lane" in note]
    assert [note.rpartition(": ")[2] for note in notes] == [reason.splitlines()[0] for reason in retried]


ALWAYS = 9


def failing(error: Exception, times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """A step of a run that meets this error the first so many times."""
    errors = iter([error] * times)

    def step(*arguments: Any) -> Any:
        if failure := next(errors, None):
            raise failure
        return then(*arguments)

    return step


@pytest.mark.parametrize(
    ("step", "error", "times", "status", "tries"),
    [
        # Without an image no lane helps; a fault of the host is tried again like any other.
        ("image", LabError("no package"), ALWAYS, "error", 1),
        ("image", ImageNotAvailable("no host", hint="import it"), ALWAYS, "not-run", 1),
        ("image", UserCannotBuild("no host", hint="be root"), ALWAYS, "n/a", 1),
        ("image", libvirt.libvirtError("no daemon"), ALWAYS, "error", 2),
        ("image", DISK_FULL, 1, "pass", 2),
        ("preparation", NotPrepared("no bwrap", hint="a net", evidence={"a.log": "apt"}), ALWAYS, "error", 1),
        ("preparation", LaneDied("the machine is gone"), 1, "pass", 2),
        ("boot", LabError("no boot"), 1, "pass", 2),
        ("build", libvirt.libvirtError("no daemon"), 1, "pass", 2),
        ("build", DISK_FULL, 1, "pass", 2),
        # It costs no boot for each cell.
        ("build", LabError("pip could not fetch boxlite"), ALWAYS, "error", 2),
        ("cell", libvirt.libvirtError("no daemon"), 1, "pass", 2),
        ("cell", DISK_FULL, 1, "pass", 2),
        # Every lane would meet these.
        ("cell", NotInEffect("variant not in effect"), 1, "error", 1),
        ("cell", NotAsDefined("SELinux is not in use"), 1, "error", 1),
    ],
)
def test_a_fault_costs_the_cells_that_it_keeps_from_running_a_second_try_where_that_may_help(
    lab: Lab,
    image: BaseImage,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    times: int,
    status: str,
    tries: int,
) -> None:
    if step == "image":
        monkeypatch.setattr(store, "ensure_image", failing(error, times, lambda *_: image))
    elif step == "preparation":
        monkeypatch.setattr(prepare_image, "ensure_prepared_image", failing(error, times, lambda *_: image))
    elif step == "boot":
        lab.boot = failing(error, times, boots)
    elif step == "build":
        lab.deploy = failing(error, times, lambda *_: {})
    else:
        lab.cell = at("debian-13/stock", fails(error))
    run = lab.run(guests=ONE, jobs=1)
    assert statuses(run) == {"debian-13": [status, "pass" if step == "cell" else status]}
    [cell, _] = run.cells
    assert cell.history.retried == [str(error)] * (tries - 1)
    no_image = dict.fromkeys(("not-run", "n/a"), "image not available: no host")
    assert cell.reason == {"pass": "", **no_image}.get(status, str(error))
    assert len(lab.booted) <= tries
    # A gate has nothing to wait for if this user can never build the guest.
    assert run.exit_status() == (0 if status in ("pass", "n/a") else 3)
    if isinstance(error, ImageNotAvailable):
        assert lab.heard.notes.count(f"debian-13: no host\n  next: {error.hint}") == 1
    if isinstance(error, NotPrepared):
        assert [(lab.folder / name).read_text() for name in cell.evidence] == ["apt"]


@pytest.mark.parametrize("status", [Status.FAIL, Status.XPASS, Status.XFAIL])
def test_what_boxlite_does_is_never_tried_again(lab: Lab, status: Status) -> None:
    lab.cell = at("debian-13/stock", lambda _running, cell: cell.result(status, reason="so it is"))
    run = lab.run(guests=ONE, retries=5)
    assert lab.lanes() == [["stock", "max-userns-zero"]]
    assert [(cell.status, cell.history.retried) for cell in run.cells] == [(status, []), (Status.PASS, [])]


def test_after_a_guest_that_did_not_come_up_later_lanes_know_how_slow_its_kernel_was(lab: Lab) -> None:
    verdict = acceleration.AccelerationVerdict(key="this host", kvm=False, reason="a test", kernel_seconds=0.5)
    lab.paths.make(lab.paths.cache)
    lab.paths.acceleration.write_text(verdict.model_dump_json())

    def boot(running: RunningLane) -> None:
        boots(running)
        if len(lab.booted) == 1:
            running.lane.console.write_text("[   20.0] Run /init as init process\n")
            raise BootFailed("debian-13 did not come up: waited 30 s for the guest's SSH server")

    lab.boot = boot
    run = lab.run(guests=ONE, jobs=1)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    kept = acceleration.AccelerationVerdict.model_validate_json(lab.paths.acceleration.read_bytes())
    assert kept == verdict.model_copy(update={"kernel_seconds": 20.0})


def test_a_lane_without_the_clock_that_was_expected_has_this_found_out_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = acceleration.AccelerationVerdict(key="this host", kvm=False, reason="a test", slower_clock=True)
    lab.paths.make(lab.paths.cache)
    lab.paths.acceleration.write_text(verdict.model_dump_json())
    kept: list[bool] = []

    def decide(*_arguments: object) -> Acceleration:
        known = acceleration.read_verdict(lab.paths)
        assert known is not None
        kept.append(known.slower_clock)
        # The machines of libvirt's test driver have no QEMU that could load anything.
        slower = Clock(RATE, {"LD_PRELOAD": "/usr/lib/libfaketime.so"})
        return Acceleration(False, "a test", clock=slower if known.slower_clock else REAL)

    monkeypatch.setattr(acceleration, "decide_acceleration", decide)
    run = lab.run(guests=ONE, jobs=1)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert kept == [True, False]
    assert "something on this host confines it" in run.cells[0].history.retried[0]


@pytest.mark.parametrize(("times", "status"), [(1, "pass"), (2, "error")])
def test_a_verdict_that_is_the_labs_fault_is_tried_again(lab: Lab, times: int, status: str) -> None:
    def slow(_running: RunningLane, cell: Cell) -> CellResult:
        (lab.folder / cell.folder).mkdir(parents=True, exist_ok=True)
        (lab.folder / cell.folder / "probes.json").touch()
        tests = [TestResult(name="a", outcome=Outcome.FAIL)]
        return changed(cell.result(Status.ERROR, reason="too slow"), tests=tests)

    lab.cell = at("debian-13/stock", *[slow] * times)
    run = lab.run(guests=ONE)
    assert lab.lanes() == [["stock", "max-userns-zero"], ["stock"]]
    assert statuses(run) == {"debian-13": [status, "pass"]}
    tried = run.cells[0]
    assert tried.history.retried == ["too slow"]
    base = "cells/debian-13/stock/0.10.8"
    assert tried.evidence == [f"{base}/{name}probes.json" for name in ["fault-1/", ""][:times]]
    assert [test.name for test in tried.tests] == ["a"] * (times - 1)


@pytest.mark.parametrize(
    ("fault", "stretched", "again"),
    [
        # A box that missed boxlite's own limit.
        (Fault.TOO_SLOW, [1.0, 1.0, 1.0], Status.PASS),
        # A suite that met the lab's own has twice the time; if that does not suffice, either, boxlite hangs.
        (Fault.TIME_LIMIT, [1.0, 1.0, 2.0], Status.FAIL),
    ],
)
def test_a_late_suite_is_run_again_alone(lab: Lab, fault: Fault, stretched: list[float], again: Status) -> None:
    def late(_running: RunningLane, cell: Cell) -> CellResult:
        return changed(cell.result(Status.ERROR, reason="a_test was late"), fault=fault)

    lab.cell = at("debian-13/stock", late, lambda _running, cell: cell.result(again))
    run = lab.run(guests=ONE)
    assert [sorted(lane) for lane in lab.lanes()] == [["max-userns-zero", "stock", "stock"]]
    assert (sorted(lab.stretched), sorted(lab.alone)) == (stretched, [False, False, True])
    assert statuses(run) == {"debian-13": [again, "pass"]}
    assert (run.cells[0].history.retried, run.cells[0].history.faults) == (["a_test was late"], [fault])
    assert "debian-13 stock: to be tried again alone: a_test was late" in lab.heard.notes


def test_a_fault_in_a_repeat_loses_no_repeat_that_ended(lab: Lab) -> None:
    lab.cell = at("debian-13/stock", passes, fails(LabError("SSH broke")))
    run = lab.run(guests=ONE, variants=["stock"], repeat=3)
    assert lab.lanes() == [["stock", "stock"], ["stock", "stock"]]
    [cell] = run.cells
    assert (cell.status, cell.history.retried, len(cell.suite.repeats)) == (Status.PASS, ["SSH broke"], 3)


def test_a_lost_console_loses_no_cell(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(_console: Path, _folder: Path) -> NoReturn:
        raise DISK_FULL

    monkeypatch.setattr(console, "keep_console", keep)
    lab.cell = at("debian-13/stock", *[fails(LabError("SSH broke"))] * 2)
    run = lab.run(guests=ONE, retries=1)
    assert statuses(run) == {"debian-13": ["error", "pass"]}
    assert (run.cells[0].history.retried, run.cells[0].reason) == (["SSH broke"], "SSH broke")
